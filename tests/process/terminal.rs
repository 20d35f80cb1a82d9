//! What needs a real terminal: `top`, and secrets that are typed. tmux is the terminal.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use crate::daemon::{Home, free_address, output, relay_table};
use crate::relay::FakeRelay;

const SOON: Duration = crate::daemon::PATIENCE;

/// A shell in a terminal of its own; it ends with the test.
struct Terminal {
    socket: PathBuf,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

impl Terminal {
    fn open(home: &Home) -> Self {
        let it = Self {
            socket: home.path("tmux"),
        };
        let size = ["-x", "100", "-y", "30"];
        let shell = "PS1='ready> ' exec sh";
        let command = ["-f", "/dev/null", "new-session", "-d"];
        it.tmux(&[&command[..], &size, &[shell]].concat());
        it.shows("ready>");
        it
    }

    fn tmux(&self, words: &[&str]) -> String {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S")
            .arg(&self.socket)
            .args(words)
            .env("LC_ALL", "C.UTF-8");
        String::from_utf8(output(&mut tmux).stdout).unwrap()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types a line and ends it.
    fn types(&self, line: &str) {
        self.keys(&["-l", line]);
        self.keys(&["Enter"]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as it should be.
    fn until(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + SOON;
        loop {
            let screen = self.screen();
            if is(&screen) {
                return screen;
            }
            assert!(Instant::now() < end, "never: {what}\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the terminal shows no keys: a question stands there a moment earlier.
    fn until_nothing_typed_is_shown(&self) {
        let tty = self.tmux(&["display-message", "-p", "#{pane_tty}"]);
        self.until("-echo", |_| {
            let mut stty = Command::new("stty");
            let settings = output(stty.args(["-a", "-F", tty.trim()])).stdout;
            let settings = String::from_utf8_lossy(&settings).into_owned();
            settings.split([' ', ';', '\n']).any(|it| it == "-echo")
        });
    }

    fn shows(&self, words: &str) -> String {
        self.until(words, |it| it.contains(words))
    }
}

/// `penstock` as it is typed.
fn penstock(home: &Home) -> String {
    format!(
        "RUNTIME_DIRECTORY={} {} --config {}",
        home.path("run").display(),
        env!("CARGO_BIN_EXE_penstock"),
        home.path("penstock.toml").display()
    )
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tmux; .ci/run installs it"]
async fn top_shows_relays_follows_keys_and_resizing_and_gives_the_terminal_back() {
    let (one, two) = (
        FakeRelay::default().start().await,
        FakeRelay::default().start().await,
    );
    let home = Home::new("", "");
    let tables = relay_table("alpha", &one, &home.path("a.pem"), None, "")
        + &relay_table(
            "beta",
            &two,
            &home.path("b.pem"),
            None,
            "limits = { preset = \"bulk\" }",
        );
    let config = format!(
        "hostname = \"penstock.test\"\n[[listen]]\naddress = \"{}\"\n\
         [spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n{tables}",
        free_address()
    );
    home.configure(&config, "");
    let mut daemon = home.start().await;
    let command = penstock(&home);
    let terminal = tokio::task::spawn_blocking(move || {
        let terminal = Terminal::open(&home);
        terminal.types("echo what was here before");
        terminal.types(&format!("{command} top; echo ended $?; stty -a"));
        let screen = terminal.shows("q quit");
        assert!(screen.contains("RELAY"), "{screen}");
        assert!(!screen.contains("what was here before"), "{screen}");
        terminal.shows("alpha (standard)");
        terminal.keys(&["Down"]);
        terminal.shows("beta (bulk)");
        terminal.keys(&["k"]);
        terminal.shows("alpha (standard)");

        terminal.tmux(&["resize-window", "-x", "60", "-y", "14"]);
        let narrow = terminal.until("a narrow picture", |it| {
            it.lines().count() <= 14 && it.lines().any(|it| it.starts_with("q quit"))
        });
        assert!(
            narrow.lines().all(|it| it.chars().count() <= 60),
            "{narrow}"
        );
        terminal.tmux(&["resize-window", "-x", "100", "-y", "30"]);

        terminal.keys(&["q"]);
        let after = terminal.shows("ended 0");
        assert!(after.contains("what was here before"), "{after}");
        let settings = terminal.until("stty", |it| it.contains("icanon") || it.contains(" echo "));
        assert!(
            !settings.contains("-icanon") && !settings.contains("-echo "),
            "{settings}"
        );
        // Once more, and the daemon goes away under it.
        terminal.types("clear");
        terminal.types(&format!("{command} top; echo ended $?"));
        terminal.shows("q quit");
        (terminal, home)
    });
    let (terminal, _home) = terminal.await.unwrap();
    assert!(daemon.stop().await.success());
    // What it says depends on who is faster, the daemon's last line or its end.
    let ended = tokio::task::spawn_blocking(move || {
        terminal.until("the end", |it| {
            it.contains("ended 75") || it.contains("ended 69")
        })
    });
    let screen = ended.await.unwrap();
    assert!(screen.contains("penstock: penstockd"), "{screen}");
}

#[test]
#[ignore = "needs tmux; .ci/run installs it"]
fn a_password_is_asked_for_without_being_shown_and_the_difference_is() {
    let home = Home::new("", "");
    let terminal = Terminal::open(&home);
    let command = penstock(&home);
    terminal.types(&format!(
        "{command} relay add own --server '[smtp.example.nl]:587' --username mailer; echo ended $?"
    ));
    terminal.until("a question", |it| it.to_lowercase().contains("password"));
    terminal.until_nothing_typed_is_shown();
    terminal.types("correct horse");
    let screen = terminal.shows("ended 0");
    assert!(screen.contains("[relays.own]"), "the difference: {screen}");
    assert!(!screen.contains("horse"), "{screen}");
    let written = std::fs::read_to_string(home.path("penstock.toml")).unwrap();
    assert!(written.contains("correct horse"), "{written}");
}
