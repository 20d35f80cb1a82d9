//! Contents and SPF records: what strangers send and publish is read to its end, and what
//! is said of it is bounded and printable.

#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock::config::Config;
use penstock::dns::Zone;
use penstock::hint::{content, spf};

fuzz_target!(|input: &[u8]| {
    let figures = content::figures(input, true);
    for said in figures.faults.iter().chain(&figures.scripts).chain(&figures.dangerous) {
        assert!(!said.chars().any(char::is_control), "{said:?}");
        assert!(said.chars().count() <= 200, "{said:?}");
    }
    content::figures(input, false);
    content::recipients(input, 100);

    let text = String::from_utf8_lossy(input);
    let mut zone = Zone::default();
    for (place, record) in text.split('\n').take(8).enumerate() {
        let name = ["a.example", "b.example", "c.example"][place % 3];
        zone = zone.text(name, &format!("v=spf1 {record}"));
    }
    let config = Config::parse(
        "[relays.r]\nserver = \"r.example\"\nspf-include = \"c.example\"\noutbound-ips = [\"192.0.2.0/30\"]\n",
        "",
    )
    .expect("a configuration");
    let domain = penstock::mail::Domain::parse("a.example").expect("a domain");
    // Names in memory answer at once: nothing is waited for.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(spf::examine(&zone, &domain, &config.relays["r"]));
});
