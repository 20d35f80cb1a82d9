//! What the look at a content costs: `cargo bench --bench content`.

use divan::{Bencher, black_box};
use penstock::hint::content;

fn main() {
    divan::main();
}

/// A newsletter of about so many octets: tables, links, styles, pictures, words.
fn newsletter(octets: usize) -> Vec<u8> {
    let row = "<tr><td align=\"left\" style=\"font-family:Arial,sans-serif;font-size:14px\">\
               <a href=\"https://www.example.nl/nieuws?id=42&amp;utm_source=mail\">Lees verder \
               over dit onderwerp</a> <img src=\"https://www.example.nl/a.png\" width=\"120\" \
               alt=\"plaatje\"><p>De tekst van dit bericht, met <b>wat</b> opmaak.</p></td></tr>\r\n";
    let mut html =
        String::from("<html><head><style>p { margin: 0 }</style></head><body><table>\r\n");
    while html.len() < octets {
        html.push_str(row);
    }
    html.push_str("</table></body></html>");
    format!(
        "From: a@example.nl\r\nTo: b@example.org\r\nSubject: nieuws\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/alternative; boundary=x\r\n\r\n--x\r\nContent-Type: text/plain\r\n\r\n\
         hallo\r\n--x\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{html}\r\n--x--\r\n"
    )
    .into_bytes()
}

#[divan::bench(args = [10_000, 100_000, 240_000])]
fn newsletter_of_octets(bencher: Bencher, octets: usize) {
    let message = newsletter(octets);
    bencher.bench(|| content::findings(black_box(&message), true, "message"));
}

/// The worst that was thought of: everything opened, nothing closed, at every depth.
#[divan::bench]
fn hostile_html(bencher: Bencher) {
    let mut message = b"Subject: x\r\nContent-Type: text/html\r\n\r\n".to_vec();
    while message.len() < content::OCTETS_MAXIMUM {
        message.extend(b"<div><b><i></u><!-- x --><a b='c' =\" on=");
    }
    bencher.bench(|| content::findings(black_box(&message), true, "message"));
}

/// Multiparts within multiparts.
#[divan::bench]
fn hostile_nesting(bencher: Bencher) {
    let mut message = b"Subject: x\r\n".to_vec();
    for depth in 0..4_000 {
        message.extend(
            format!("Content-Type: multipart/mixed; boundary=b{depth}\r\n\r\n--b{depth}\r\n")
                .bytes(),
        );
    }
    bencher.bench(|| content::findings(black_box(&message), true, "message"));
}
