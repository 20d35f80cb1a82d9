//! `completions` and `man`: what a package installs beside the program.

use clap::{Args, Command};
use clap_complete::Shell;

use super::context::Context;
use super::exit::Outcome;

/// Options of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell they are for
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes what a shell needs to complete our verbs and options.
pub fn completions(context: &mut Context, args: CompletionsArgs, mut command: Command) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "penstock", &mut text);
    Ok(context.screen.raw(&text)?)
}

/// Writes the manual page, every verb with its options in one.
pub fn man(context: &mut Context, mut command: Command) -> Outcome {
    command.build();
    let mut text = Vec::new();
    let page = clap_mangen::Man::new(command.clone());
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    text.extend_from_slice(b".SH VERBS\n");
    for verb in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        render(verb, &mut text)?;
    }
    text.extend_from_slice(EXIT_STATUS.as_bytes());
    Ok(context.screen.raw(&text)?)
}

/// One verb and the verbs below it.
fn render(verb: &Command, text: &mut Vec<u8>) -> std::io::Result<()> {
    let below: Vec<&Command> = verb
        .get_subcommands()
        .filter(|it| it.get_name() != "help")
        .collect();
    if !below.is_empty() {
        for verb in below {
            render(verb, text)?;
        }
        return Ok(());
    }
    let name = verb.get_bin_name().unwrap_or(verb.get_name()).to_owned();
    text.extend_from_slice(format!(".SS {}\n", roff(&name)).as_bytes());
    let about = verb
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    text.extend_from_slice(format!("{}\n", roff(&about)).as_bytes());
    for argument in verb
        .get_arguments()
        .filter(|it| !it.is_hide_set() && !it.is_global_set())
    {
        if argument.get_id() == "help" {
            continue;
        }
        let help = argument
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        let shown = argument.to_string();
        text.extend_from_slice(
            format!(".TP\n\\fB{}\\fR\n{}\n", roff(&shown), roff(&help)).as_bytes(),
        );
    }
    Ok(())
}

/// Text in which roff sees no request and no escape.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

const EXIT_STATUS: &str = "\
.SH EXIT STATUS
0 success; 1 failed; 64 wrong usage; 69 no daemon to ask; 75 try again later; 78 wrong configuration.
.SH ENVIRONMENT
.TP
\\fBPENSTOCK_SOCKET\\fR
The daemon's control socket, like \\-\\-socket.
.TP
\\fBPENSTOCK_CONFIG\\fR
The configuration file, like \\-\\-config.
.TP
\\fBNO_COLOR\\fR
No colours, whatever the value.
.SH FILES
.TP
/etc/penstock/penstock.toml, /etc/penstock/users.toml
The configuration.
.TP
/run/penstock/control.sock
The daemon's control socket; members of the group penstock\\-admin may use it.
";
