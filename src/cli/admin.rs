//! `opmesh admin`: who may administer this instance over TCP.

use std::process::ExitCode;
use std::time::Duration;

use super::context::Context;
use super::output::Columns;
use super::time::{self, parse_span};
use crate::admin::{Role, pb};

/// Tokens that open the administration over TCP
///
/// Only a daemon with `admin.listen` in its configuration, or `serve --admin-listen`, asks for them; the admin socket
/// needs none.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Admin {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make tokens
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// All tokens, without their secret
    #[command(after_help = "Examples:
  opmesh admin tokens
  opmesh admin tokens --json")]
    Tokens,
    /// Make a token useless
    #[command(after_help = "Examples:
  opmesh admin revoke 3")]
    Revoke {
        /// As `admin tokens` shows it
        id: String,
    },
}

#[derive(Debug, clap::Subcommand)]
enum TokenCommand {
    Create(Create),
}

/// A new token
///
/// The token alone goes to stdout, this once; only its hash is kept.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  opmesh admin token create --role read --label grafana
  opmesh admin token create --role security --ttl 8h > token.txt")]
struct Create {
    /// read, operate (and change operations), or security (and decide who may what)
    #[arg(long, value_name = "R", value_parser = Role::ALL.map(|(_, name)| name), hide_possible_values = true)]
    role: String,
    /// How long it can be used; at most 365d
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = parse_span)]
    ttl: Duration,
    /// A note for the list of tokens
    #[arg(long, value_name = "L", default_value = "", hide_default_value = true)]
    label: String,
}

impl Admin {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Token { command: TokenCommand::Create(create) } => create.execute(context).await,
            Command::Tokens => tokens(context).await,
            Command::Revoke { id } => revoke(context, id).await,
        }
    }
}

impl Create {
    async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let request = pb::CreateAdminTokenRequest {
            role: self.role,
            ttl_ms: Some(i64::try_from(self.ttl.as_millis()).unwrap_or(i64::MAX)),
            label: self.label,
        };
        let created = context.client().await?.create_admin_token(request).await?;
        let expires = time::show_ms(created.expires_unix_ms);
        context
            .output
            .note(format_args!("token {} has the role {} until {expires}", created.id, created.role));
        if context.output.is_json() {
            context.output.object(&created)?;
        } else {
            context.output.line(&created.token)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn tokens(context: &mut Context) -> anyhow::Result<ExitCode> {
    let mut tokens = context.client().await?.list_admin_tokens(pb::ListAdminTokensRequest {}).await?;
    if context.output.is_json() {
        let mut array = context.output.array();
        while let Some(token) = tokens.next().await? {
            array.push(&token)?;
        }
        array.finish()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Columns::new(["ID", "ROLE", "LABEL", "EXPIRES", "LAST USED"]);
    while let Some(token) = tokens.next().await? {
        let used = token.last_used_unix_ms.map_or_else(|| "never".to_owned(), time::show_ms);
        let expires = time::show_ms(token.expires_unix_ms);
        table.row([token.id, token.role, token.label, expires, used]);
    }
    context.output.table(&table)?;
    Ok(ExitCode::SUCCESS)
}

async fn revoke(context: &mut Context, id: String) -> anyhow::Result<ExitCode> {
    let request = pb::RevokeAdminTokenRequest { id };
    let token = context.client().await?.revoke_admin_token(request).await?;
    if context.output.is_json() {
        context.output.object(&token)?;
    } else {
        context.output.note(format_args!("admin token {} can no longer be used", token.id));
    }
    Ok(ExitCode::SUCCESS)
}
