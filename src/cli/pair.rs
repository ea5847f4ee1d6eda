//! `opmesh pair`: a hub's token makes a host known to it.

use std::fs;
use std::io::{self, Read as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use super::context::Context;
use super::output::Columns;
use super::time::{self, parse_span};
use crate::admin::{Exit, Failure, Reason, pb};

/// Pair a host with a hub by a token
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Pair {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Token(NewToken),
    /// Tokens that can still be used
    #[command(after_help = "Examples:
  opmesh pair tokens
  opmesh pair tokens --json")]
    Tokens,
    /// Make a token useless
    #[command(after_help = "Examples:
  opmesh pair cancel 3")]
    Cancel {
        /// As `pair tokens` shows it
        id: String,
    },
    Join(Join),
}

/// On the hub: a token for one host
///
/// The token alone goes to stdout. It is a secret until it was used or has expired.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  opmesh pair token
  opmesh pair token --ttl 7d --uses 20 --label rollout
  opmesh pair token | ssh web-1 opmesh pair join - --url https://hub.example:9850")]
struct NewToken {
    /// What the host may do with this instance's things: TYPE:SCOPE,… [default: nothing]
    #[arg(long, value_name = "TYPE:SCOPE,…")]
    grant: Vec<String>,
    /// How long it can be used; at most 7d
    #[arg(long, value_name = "SPAN", default_value = "10m", value_parser = parse_span)]
    ttl: Duration,
    /// How many hosts can use it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// A note for the list of tokens
    #[arg(long, value_name = "L", default_value = "", hide_default_value = true)]
    label: String,
}

/// On the host: use a hub's token
///
/// Stores the hub and waits until it has accepted this instance. Exit code 10 when that did not happen in time (the
/// entry stays until the token expires), 4 when the hub refused, 12 when another key answers at the URL.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  opmesh pair join opmesh1.ed25519… --url https://hub.example:9850
  opmesh pair join @token.txt --url https://hub.example --grant 'READ_OPERATIONS:*,!plan:private'
  ssh hub opmesh pair token | opmesh pair join - --url https://hub.example")]
struct Join {
    /// What `pair token` printed, - to read it from stdin, or @FILE
    token: String,
    /// Where the hub is reached; again for more addresses
    #[arg(long, required = true, value_name = "URL")]
    url: Vec<String>,
    /// How the hub is spoken to: tls, sealed behind a proxy, or plain on loopback
    #[arg(long, value_name = "C")]
    channel: Option<String>,
    /// What the hub may do with this instance's things [default: `READ_OPERATIONS:*`]
    #[arg(long, value_name = "TYPE:SCOPE,…")]
    grant: Vec<String>,
    /// How long to wait for the hub
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = parse_span)]
    timeout: Duration,
    /// Store the hub and do not wait
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
}

impl Pair {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Token(token) => token.execute(context).await,
            Command::Tokens => tokens(context).await,
            Command::Cancel { id } => cancel(context, id).await,
            Command::Join(join) => join.execute(context).await,
        }
    }
}

impl NewToken {
    async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let request = pb::CreateTokenRequest {
            grants: self.grant,
            ttl_ms: Some(i64::try_from(self.ttl.as_millis()).unwrap_or(i64::MAX)),
            uses: Some(self.uses),
            label: self.label,
        };
        let created = context.client().await?.create_token(request).await?;
        say_grants(context, "whoever uses this token", &created.grants);
        context.output.note(format_args!("it expires at {}", time::show_ms(created.expires_unix_ms)));
        if context.output.is_json() {
            context.output.object(&created)?;
        } else {
            context.output.line(&created.token)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn tokens(context: &mut Context) -> anyhow::Result<ExitCode> {
    let mut tokens = context.client().await?.list_tokens(pb::ListTokensRequest {}).await?;
    if context.output.is_json() {
        let mut array = context.output.array();
        while let Some(token) = tokens.next().await? {
            array.push(&token)?;
        }
        array.finish()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Columns::new(["ID", "LABEL", "USES LEFT", "EXPIRES", "GIVES"]);
    while let Some(token) = tokens.next().await? {
        let gives = if token.grants.is_empty() { "nothing".to_owned() } else { token.grants.join(" ") };
        table.row([
            token.id,
            token.label,
            token.uses_left.to_string(),
            time::show_ms(token.expires_unix_ms),
            gives,
        ]);
    }
    context.output.table(&table)?;
    Ok(ExitCode::SUCCESS)
}

async fn cancel(context: &mut Context, id: String) -> anyhow::Result<ExitCode> {
    let token = context.client().await?.cancel_token(pb::CancelTokenRequest { id }).await?;
    if context.output.is_json() {
        context.output.object(&token)?;
    } else {
        context.output.note(format_args!("token {} can no longer be used", token.id));
    }
    Ok(ExitCode::SUCCESS)
}

impl Join {
    async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let client = context.client().await?;
        let wait = if self.no_wait { Duration::ZERO } else { self.timeout };
        let request = pb::JoinHubRequest {
            token: read_token(&self.token)?,
            urls: self.url,
            channel: self.channel,
            grants: self.grant,
            timeout_ms: Some(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)),
        };
        let progress = context.output.progress("waiting for the hub");
        let joined = client.join_hub(request).await?;
        drop(progress);
        let hub = joined.hub.clone().unwrap_or_default();
        let name = if hub.instance_id.is_empty() { "the hub".to_owned() } else { hub.instance_id };
        say_grants(context, &name, &joined.grants_given);
        if context.output.is_json() {
            context.output.object(&joined)?;
        } else {
            let state = match joined.state.as_str() {
                "already_paired" => "was paired already",
                "waiting" => "will be paired when it is reached",
                _ => "is paired",
            };
            context.output.line(format_args!("{name} ({}) {state}", hub.key_id))?;
        }
        let late = joined.state == "waiting" && !self.no_wait;
        Ok(ExitCode::from(if late { Exit::Unreachable.code() } else { Exit::Ok.code() }))
    }
}

fn say_grants(context: &Context, whom: &str, grants: &[String]) {
    if grants.is_empty() {
        context.output.note(format_args!("{whom} is granted nothing of this instance"));
    } else {
        context.output.note(format_args!("{whom} is granted {}", grants.join(" ")));
    }
}

/// The token itself, from where the argument says it is.
fn read_token(argument: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    if argument == "-" {
        io::stdin()
            .take(MAX_TOKEN_BYTES)
            .read_to_string(&mut text)
            .context("the token cannot be read from stdin")?;
    } else if let Some(path) = argument.strip_prefix('@') {
        let file = fs::File::open(path).with_context(|| format!("the token file {path} cannot be opened"))?;
        file.take(MAX_TOKEN_BYTES)
            .read_to_string(&mut text)
            .with_context(|| format!("the token file {path} cannot be read"))?;
    } else {
        argument.clone_into(&mut text);
    }
    let token = text.trim();
    if token.is_empty() {
        let failure = Failure::new(Reason::InvalidArgument, "no token was given");
        return Err(failure.hint("run `opmesh pair token` on the hub").into());
    }
    Ok(token.to_owned())
}

/// Far more than a token has.
const MAX_TOKEN_BYTES: u64 = 4096;
