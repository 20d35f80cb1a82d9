//! `relay login`: what a person has to do, and how it went.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;

use clap::Args;

use crate::cli::context::Context;
use crate::cli::exit::{Outcome, Trouble};
use crate::cli::screen::{Look, Tone};
use crate::control::protocol::{Item, LoggedIn, LoginPrompt, OAuthReport, Request};
use crate::mail::text::printable;

/// Longer than any refresh token.
const TOKEN_MAXIMUM: u64 = 16 * 1024;

/// A relay, and perhaps a refresh token.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// Its name in penstock.toml
    #[arg(value_name = "RELAY")]
    relay: String,
    /// Hand over a refresh token that was got elsewhere, in this file; - reads standard input
    #[arg(long, value_name = "FILE")]
    refresh_token_file: Option<String>,
}

/// Logs in; fails when the relay does not take the login.
pub fn login(context: &mut Context, args: LoginArgs) -> Outcome {
    let refresh_token = args.refresh_token_file.as_deref().map(read).transpose()?;
    let request = Request::RelayLogin {
        relay: args.relay,
        refresh_token,
    };
    let mut works = true;
    for item in context.ask(&request)? {
        let item = item?;
        let screen = &mut context.screen;
        match item {
            Item::Login(prompt) if screen.look.json => screen.json(&prompt)?,
            Item::LoggedIn(done) if screen.look.json => screen.json(&done)?,
            Item::RelayTest(report) if screen.look.json => {
                works = report.ok;
                screen.json(&report)?;
            }
            Item::Login(prompt) => {
                for line in prompted(&screen.look, &prompt) {
                    screen.line(line)?;
                }
            }
            Item::LoggedIn(done) => {
                for line in done_lines(&screen.look, &done) {
                    screen.line(line)?;
                }
            }
            Item::RelayTest(report) => {
                works = report.ok;
                let verdicts = ["takes the login", "does not take the login"];
                for line in super::test_lines(&screen.look, &report, verdicts) {
                    screen.line(line)?;
                }
            }
            _ => {}
        }
        // What a person has to do must be seen before it is waited for.
        context.screen.flush()?;
    }
    match works {
        true => Ok(()),
        false => Err(Trouble::said(ExitCode::FAILURE)),
    }
}

/// A refresh token from a file or from standard input, never from an argument: the process
/// list shows those to everybody.
fn read(path: &str) -> Result<String, Trouble> {
    let mut text = String::new();
    let read = match path {
        "-" if io::stdin().is_terminal() => {
            text = rpassword::prompt_password("Refresh token: ")
                .map_err(|error| Trouble::failed(format!("cannot ask for it: {error}")))?;
            Ok(0)
        }
        "-" => io::stdin().take(TOKEN_MAXIMUM).read_to_string(&mut text),
        path => File::open(path).and_then(|it| it.take(TOKEN_MAXIMUM).read_to_string(&mut text)),
    };
    read.map_err(|error| Trouble::failed(format!("cannot read {path}: {error}")))?;
    let token = text.trim();
    // JSON, or an access token with its label, is not what is meant.
    if token.is_empty() || token.contains(char::is_whitespace) || token.starts_with('{') {
        return Err(Trouble::usage(format!(
            "{path} should have the refresh token in it and nothing else"
        )));
    }
    Ok(token.to_owned())
}

fn prompted(look: &Look, prompt: &LoginPrompt) -> Vec<String> {
    let shown = |it: &str| printable(it.as_bytes(), 500);
    let mut lines = vec![
        "Open this page in a browser, on any machine:".to_owned(),
        String::new(),
        format!("    {}", look.tone(Tone::Strong, &shown(&prompt.page))),
        String::new(),
        "and enter the code".to_owned(),
        String::new(),
        format!("    {}", look.tone(Tone::Strong, &shown(&prompt.code))),
        String::new(),
    ];
    if let Some(page) = &prompt.whole_page {
        lines.push("(or open the page with the code in it:".to_owned());
        lines.push(format!("    {} )", shown(page)));
        lines.push(String::new());
    }
    let what = format!(
        "Log in there as {}, or as somebody with rights to it, and allow what it asks for. Waiting until {}; Ctrl-C gives up.",
        shown(&prompt.username),
        look.words.both(prompt.expires)
    );
    lines.extend(look.wrap(&what, 0));
    lines
}

fn done_lines(look: &Look, done: &LoggedIn) -> Vec<String> {
    let until = done
        .expires
        .map(|at| format!(", until {}", look.words.both(at)));
    let text = format!(
        "logged in for {} as {}{}",
        done.relay,
        printable(done.username.as_bytes(), 320),
        until.unwrap_or_default()
    );
    let lines = look.wrap(&text, 0).into_iter();
    lines.map(|it| look.tone(Tone::Good, &it)).collect()
}

/// Whether a person has to log in before mail can leave.
pub fn is_missing(login: &OAuthReport) -> bool {
    login.grant == "login" && login.since.is_none()
}

/// How a login with tokens stands, in words.
pub fn standing(look: &Look, login: &OAuthReport) -> String {
    let mut said = match (&login.since, &login.by) {
        (Some(at), Some(by)) => format!("logged in {} by {by}", look.words.both(*at)),
        (Some(at), None) => format!("logged in {}", look.words.both(*at)),
        (None, _) if is_missing(login) => "nobody is logged in".to_owned(),
        (None, _) => "the application logs in by itself (client-credentials)".to_owned(),
    };
    if let (Some(at), None) = (login.expires, &login.trouble) {
        said.push_str(&format!("; the login ends {}", look.words.both(at)));
    }
    if let Some(trouble) = &login.trouble {
        said.push_str(&format!("; {trouble}"));
    }
    said
}
