//! `top`: queue, relays and limits, live.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table, TableState};
use ratatui::{DefaultTerminal, Frame};

use super::context::Context;
use super::exit::{Outcome, Trouble};
use super::screen::Look;
use super::words::{count, grouped};
use super::{limits, status};
use crate::control::client::{Answer, ClientError};
use crate::control::protocol::{Item, RelayState, RelayStatus, Request, TopSnapshot};

/// How often keys and pictures are looked for.
const TICK: Duration = Duration::from_millis(100);

/// Options of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Seconds between two pictures
    #[arg(long, short = 'd', value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    delay: u64,
}

/// Shows queue, relays and limits until `q`; with `--json`, one picture a line for ever.
pub fn top(context: &mut Context, args: TopArgs) -> Outcome {
    let request = Request::Top {
        interval_seconds: args.delay,
    };
    if context.screen.look.json {
        for item in context.ask(&request)? {
            if let Item::Top(picture) = item? {
                context.screen.json(&picture)?;
                context.screen.flush()?;
            }
        }
        return Ok(());
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Trouble::usage(
            "top needs a terminal; for programs: penstock top --json, or penstock status",
        ));
    }
    let pictures = receive(context.ask(&request)?);
    let mut view = View::new(context.screen.look.clone());
    let mut terminal = ratatui::try_init()?;
    let ended = show(&mut terminal, &mut view, &pictures);
    ratatui::restore();
    ended
}

/// Reads pictures on a thread of its own, so that keys are heard meanwhile.
fn receive(answer: Answer) -> Receiver<Result<TopSnapshot, ClientError>> {
    let (sender, pictures) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        for item in answer {
            let picture = match item {
                Ok(Item::Top(picture)) => Ok(*picture),
                Ok(_) => continue,
                Err(error) => Err(error),
            };
            if sender.send(picture).is_err() {
                break;
            }
        }
    });
    pictures
}

fn show(
    terminal: &mut DefaultTerminal,
    view: &mut View,
    pictures: &Receiver<Result<TopSnapshot, ClientError>>,
) -> Outcome {
    loop {
        terminal.draw(|frame| view.draw(frame))?;
        match pictures.try_recv() {
            Ok(picture) => view.take(picture?),
            Err(mpsc::TryRecvError::Empty) => {}
            // The daemon stopped: its last picture would only mislead.
            Err(mpsc::TryRecvError::Disconnected) => {
                return Err(Trouble::no_daemon("penstockd stopped"));
            }
        }
        if !event::poll(TICK)? {
            continue;
        }
        let Event::Key(key) = event::read()? else {
            continue;
        };
        if key.kind != KeyEventKind::Press {
            continue;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Ok(()),
            KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
            KeyCode::Down | KeyCode::Char('j') => view.select(1),
            KeyCode::Up | KeyCode::Char('k') => view.select(-1),
            _ => {}
        }
    }
}

/// What is on the screen.
struct View {
    look: Look,
    /// The two latest pictures, the older first: rates are their difference.
    before: Option<TopSnapshot>,
    now: Option<TopSnapshot>,
    selected: TableState,
}

impl View {
    fn new(look: Look) -> Self {
        Self {
            // Colours are ratatui's here; escapes of our own would be shown as text.
            look: Look {
                colour: false,
                ..look
            },
            before: None,
            now: None,
            selected: TableState::default().with_selected(0),
        }
    }

    fn take(&mut self, picture: TopSnapshot) {
        self.look.words.now = picture.at;
        self.before = self.now.replace(picture);
    }

    fn select(&mut self, step: isize) {
        let relays = self.now.as_ref().map_or(0, |it| it.relays.len());
        let place = self.selected.selected().unwrap_or(0);
        let place = place
            .saturating_add_signed(step)
            .min(relays.saturating_sub(1));
        self.selected.select(Some(place));
    }

    /// Something a second between the two pictures.
    fn rate(&self, what: impl Fn(&TopSnapshot) -> u64) -> Option<f64> {
        let (before, now) = (self.before.as_ref()?, self.now.as_ref()?);
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        // A daemon that was restarted counts from zero again.
        let more = what(now).checked_sub(what(before))?;
        (seconds > 0.0).then(|| more as f64 / seconds)
    }

    fn draw(&mut self, frame: &mut Frame) {
        self.look.width = usize::from(frame.area().width);
        let Some(picture) = &self.now else {
            frame.render_widget("waiting for penstockd ...", frame.area());
            return;
        };
        let relays = u16::try_from(picture.relays.len()).unwrap_or(u16::MAX);
        let [head, table, detail, keys] = Layout::vertical([
            Constraint::Length(4),
            Constraint::Max(relays.saturating_add(2)),
            Constraint::Fill(1),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Text::from(self.head(picture)), head);
        let rows = picture.relays.iter().map(|it| row(&self.look, it));
        let title = [
            "RELAY",
            "STATE",
            "WAITING",
            "HELD",
            "OPEN",
            "LAST SUCCESS",
            "WHY",
        ];
        let widths = [16, 10, 9, 6, 4, 14, 200].map(Constraint::Max);
        let relays = Table::new(rows, widths)
            .header(Row::new(title).style(Style::new().add_modifier(Modifier::BOLD)))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(relays, table, &mut self.selected.clone());
        let selected = self.selected.selected().unwrap_or(0);
        let name = picture.relays.get(selected).map(|it| it.relay.as_str());
        let limits = picture
            .limits
            .iter()
            .find(|it| Some(it.relay.as_str()) == name);
        let lines = limits
            .map(|it| limits::lines(&self.look, it))
            .unwrap_or_default();
        let lines: Vec<Line> = lines.into_iter().map(Line::from).collect();
        frame.render_widget(
            Paragraph::new(lines).block(Block::new().borders(Borders::TOP)),
            detail,
        );
        let keys_line =
            Line::from("q quit   up/down relay").style(Style::new().add_modifier(Modifier::DIM));
        frame.render_widget(keys_line, keys);
    }

    fn head(&self, picture: &TopSnapshot) -> Vec<Line<'static>> {
        let rate = |name: &str, rate: Option<f64>| match rate {
            Some(rate) => format!("{rate:.1} {name}/s"),
            None => format!("- {name}/s"),
        };
        let rates = [
            rate("accepted", self.rate(|it| it.traffic.accepted)),
            rate("delivered", self.rate(|it| it.traffic.delivered)),
            rate("deferred", self.rate(|it| it.traffic.deferred)),
            rate("failed", self.rate(|it| it.traffic.failed)),
        ];
        let time = self.look.words.precise(picture.at);
        vec![
            Line::from(format!(
                "penstock  {time}  {}",
                count(picture.clients, "client", "clients")
            )),
            Line::from(format!("traffic   {}", rates.join("  "))),
            Line::from(format!(
                "queue     {}",
                status::queue(&self.look, &picture.queue)
            )),
            Line::default(),
        ]
    }
}

fn row(look: &Look, relay: &RelayStatus) -> Row<'static> {
    let colour = match relay.state {
        RelayState::Active => Color::Green,
        RelayState::Unverified => Color::Yellow,
        RelayState::Paused | RelayState::Missing => Color::Red,
    };
    let success = relay.last_success.map(|at| look.words.relative(at));
    Row::new([
        Cell::from(look.fit(&relay.relay, 16)),
        Cell::from(relay.state.name()).style(Style::new().fg(colour)),
        Cell::from(grouped(relay.waiting)),
        Cell::from(grouped(relay.held)),
        Cell::from(grouped(relay.connections)),
        Cell::from(success.unwrap_or_default()),
        Cell::from(look.fit(relay.reason.as_deref().unwrap_or_default(), 200)),
    ])
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::cli::screen::tests::look;
    use crate::control::protocol::{QueueCounts, Traffic};

    fn picture(at: &str, accepted: u64) -> TopSnapshot {
        let relay = |name: &str, state| RelayStatus {
            relay: name.into(),
            servers: vec![],
            state,
            reason: Some("535 5.7.8 \x1b[31mbad".into()).filter(|_| state == RelayState::Paused),
            remedy: None,
            by: None,
            since: None,
            next_probe: None,
            username: None,
            sender: None,
            tls: None,
            preset: None,
            default: false,
            connections: 2,
            waiting: 1_234,
            waiting_bytes: 0,
            held: 0,
            last_success: None,
            last_failure: None,
            last_error: None,
            verification: None,
            oauth: None,
        };
        TopSnapshot {
            at: at.parse().unwrap(),
            clients: 3,
            queue: QueueCounts {
                messages: 1_234,
                waiting: 1_234,
                size_bytes: 5_000_000,
                ..Default::default()
            },
            traffic: Traffic {
                accepted,
                ..Default::default()
            },
            relays: vec![
                relay("own", RelayState::Active),
                relay("carerix", RelayState::Paused),
            ],
            limits: vec![],
        }
    }

    #[test]
    fn the_picture_shows_rates_relays_and_why_one_is_paused() {
        let mut view = View::new(look());
        let mut terminal = Terminal::new(TestBackend::new(90, 12)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        view.take(picture("2026-11-21T13:02:00Z", 100));
        view.take(picture("2026-11-21T13:02:02Z", 125));
        view.select(5);
        assert_eq!(view.selected.selected(), Some(1));
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let text: Vec<String> = buffer
            .content()
            .chunks(90)
            .map(|line| {
                line.iter()
                    .map(|it| it.symbol())
                    .collect::<String>()
                    .trim_end()
                    .to_owned()
            })
            .collect();
        assert_eq!(
            text[0..3],
            [
                "penstock  14:02:02  3 clients",
                "traffic   12.5 accepted/s  0.0 delivered/s  0.0 deferred/s  0.0 failed/s",
                "queue     1,234 messages, 5 MB: 1,234 waiting"
            ]
        );
        assert!(text[4].starts_with("RELAY"), "{text:#?}");
        assert!(text[5].starts_with("own "), "{text:#?}");
        assert!(
            text[6].contains("paused") && text[6].contains("535 5.7.8 \\u{1b}[31mbad"),
            "{text:#?}"
        );
        assert_eq!(text[11], "q quit   up/down relay");
    }
}
