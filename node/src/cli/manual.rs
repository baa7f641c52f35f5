//! `completions` and `man`: made from the same definition that reads the command line.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::CliError;
use super::args::Line;

/// Writes completions for `shell` to the standard output.
pub(super) fn completions(shell: Shell) -> Result<(), CliError> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Line::command(), "wormhole", &mut text);
    io::stdout().lock().write_all(&text)?;
    Ok(())
}

/// Writes the manual page, all commands in one, to the standard output.
pub(super) fn page() -> Result<(), CliError> {
    let mut text = Vec::new();
    let mut command = Line::command();
    command.build();
    let page = Man::new(command.clone());
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    writeln!(text, ".SH COMMANDS")?;
    for command in command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
    {
        writeln!(text, ".SS \"wormhole {}\"", command.get_name())?;
        let page = Man::new(command.clone());
        page.render_description_section(&mut text)?;
        page.render_options_section(&mut text)?;
    }
    page.render_extra_section(&mut text)?;
    page.render_version_section(&mut text)?;
    io::stdout().lock().write_all(&text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_stands_in_the_reference() {
        let reference = include_str!("../../../docs/cli.md");
        for command in Line::command().get_subcommands() {
            let name = command.get_name();
            assert!(
                reference.contains(&format!("`wormhole {name}")),
                "docs/cli.md lacks {name}"
            );
        }
    }
}
