//! The status page: what `penstock status` and `penstock limits` tell, in a browser.

use std::fmt::Write;

use crate::control::protocol::{LimitsReport, StatusReport};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #ddd}\
td.n,th.n{text-align:right}.bad{color:#a00;font-weight:600}meter{width:10rem}";

/// The whole page.
pub fn status(status: &StatusReport, limits: &[LimitsReport]) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    write(&mut page, status, limits).ok();
    page
}

fn write(page: &mut String, status: &StatusReport, limits: &[LimitsReport]) -> std::fmt::Result {
    let host = escaped(&status.hostname);
    write!(
        page,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <meta http-equiv=refresh content=15><title>Penstock on {host}</title><style>{STYLE}</style>\
         <h1>Penstock on {host}</h1>"
    )?;
    match status.problems.is_empty() {
        true => page.write_str("<p>All is well.</p>")?,
        false => {
            page.write_str("<ul>")?;
            for problem in &status.problems {
                write!(page, "<li class=bad>{}</li>", escaped(problem))?;
            }
            page.write_str("</ul>")?;
        }
    }
    let queue = &status.queue;
    write!(
        page,
        "<h2>Queue</h2><table><tr><th class=n>Waiting<th class=n>Deferred<th class=n>Sending<th class=n>Paused<th class=n>Held</tr>\
         <tr><td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}</tr></table>",
        queue.waiting, queue.deferred, queue.sending, queue.paused, queue.held
    )?;
    page.write_str("<h2>Relays</h2><table><tr><th>Relay<th>State<th class=n>Waiting<th class=n>Held<th>Reason</tr>")?;
    for relay in &status.relays {
        write!(
            page,
            "<tr><td>{}<td>{}<td class=n>{}<td class=n>{}<td>{}</tr>",
            escaped(&relay.relay),
            relay.state.name(),
            relay.waiting,
            relay.held,
            escaped(relay.reason.as_deref().unwrap_or(""))
        )?;
    }
    page.write_str("</table><h2>Limits</h2><table><tr><th>Relay<th>Limit<th class=n>Used<th class=n>Allowed<th></tr>")?;
    for report in limits {
        for window in &report.windows {
            write!(
                page,
                "<tr><td>{}<td>{}<td class=n>{}<td class=n>{}<td><meter max={} value={}></meter></tr>",
                escaped(&report.relay),
                escaped(&window.limit),
                window.used,
                window.allowed,
                window.allowed.max(1),
                window.used
            )?;
        }
    }
    page.write_str("</table></html>\n")
}

/// Text that is only read.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
