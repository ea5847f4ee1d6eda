//! `opmesh completion`.

use std::process::ExitCode;

use clap_complete::Shell;

use super::context::Context;

/// A script that completes commands and options in a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  opmesh completion bash > /etc/bash_completion.d/opmesh
  opmesh completion zsh > ~/.zfunc/_opmesh
  opmesh completion fish > ~/.config/fish/completions/opmesh.fish")]
pub(super) struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    pub(super) fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::command(), "opmesh", &mut script);
        context.output.line(String::from_utf8_lossy(&script).trim_end())?;
        Ok(ExitCode::SUCCESS)
    }
}
