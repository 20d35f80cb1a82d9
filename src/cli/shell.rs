//! `completions` and `man`: what a package installs beside the program.

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;

use super::context::Context;
use super::exit::Outcome;
use super::sendmail;

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

/// Options of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Of which program
    #[arg(value_enum, default_value_t)]
    page: Page,
}

/// A manual page.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Page {
    /// penstock(1)
    #[default]
    Penstock,
    /// sendmail(8)
    Sendmail,
}

/// Writes a manual page.
pub fn man(context: &mut Context, args: ManArgs, command: Command) -> Outcome {
    match args.page {
        Page::Penstock => penstock(context, command),
        Page::Sendmail => Ok(context.screen.raw(sendmail_page().as_bytes())?),
    }
}

/// Every verb with its options, on one page.
fn penstock(context: &mut Context, mut command: Command) -> Outcome {
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

/// What `sendmail --help` says, as a manual page.
fn sendmail_page() -> String {
    let mut text = format!(
        ".TH SENDMAIL 8 \"\" \"penstock {}\"\n\
         .SH NAME\nsendmail \\- give a message to penstockd\n",
        crate::VERSION
    );
    let (usage, rest) = sendmail::HELP.split_once('\n').unwrap_or_default();
    let usage = usage.trim_start_matches("Usage: ");
    text += &format!(".SH SYNOPSIS\n{}\n.SH DESCRIPTION\n", roff(usage));
    for line in rest.lines() {
        let option = line.strip_prefix("  ");
        match option.and_then(|it| it.split_once("  ")) {
            Some((option, about)) => {
                let (option, about) = (roff(option), roff(about.trim_start()));
                text += &format!(".TP\n\\fB{option}\\fR\n{about}\n");
            }
            None if line.is_empty() => text += ".PP\n",
            None => text += &format!("{}\n", roff(line)),
        }
    }
    text + ".SH SEE ALSO\npenstock(1), penstockd(8)\n"
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
.SH SEE ALSO
penstockd(8), sendmail(8), systemctl(1), journalctl(1)
";
