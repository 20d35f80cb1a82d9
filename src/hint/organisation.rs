//! Which domains belong to one organisation: the public suffix list and one label more
//! (RFC 7489 section 3.2).

use crate::mail::Domain;

/// The organisational domain; a name that is itself a public suffix stands for itself.
pub fn organisational(domain: &Domain) -> &str {
    let name = domain.ascii();
    match psl::domain_str(name) {
        Some(organisational) => organisational,
        None => name,
    }
}

/// Whether two domains have the same organisational domain; address literals have none.
pub fn same(one: &Domain, other: &Domain) -> bool {
    one.literal().is_none()
        && other.literal().is_none()
        && organisational(one) == organisational(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_suffix_list_says_where_an_organisation_begins() {
        let organisation = |text: &str| organisational(&Domain::parse(text).unwrap()).to_owned();
        for (name, meant) in [
            ("mail.uwdomein.nl", "uwdomein.nl"),
            ("uwdomein.nl", "uwdomein.nl"),
            ("a.b.example.co.uk", "example.co.uk"),
            ("nl", "nl"),
            ("M\u{fc}ller.example", "xn--mller-kva.example"),
        ] {
            assert_eq!(organisation(name), meant);
        }
        let same = |one: &str, other: &str| {
            super::same(&Domain::parse(one).unwrap(), &Domain::parse(other).unwrap())
        };
        assert!(same("a.example.nl", "B.Example.NL"));
        assert!(!same("a.co.uk", "b.co.uk"));
        assert!(!same("[192.0.2.1]", "[192.0.2.1]"));
    }
}
