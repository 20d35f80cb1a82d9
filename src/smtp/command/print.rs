//! MAIL and RCPT as they go upstream.

use std::fmt;

use crate::mail::xtext;
use crate::mail::{Body, Notify, Ret};

use super::{MailCommand, RecipientCommand};

impl fmt::Display for MailCommand {
    /// As it goes over the wire, without CRLF.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MAIL FROM:<{}>", self.reverse_path)?;
        if let Some(size) = self.size {
            write!(f, " SIZE={size}")?;
        }
        match self.body {
            Some(Body::SevenBit) => f.write_str(" BODY=7BIT")?,
            Some(Body::EightBitMime) => f.write_str(" BODY=8BITMIME")?,
            None => {}
        }
        if self.smtputf8 {
            f.write_str(" SMTPUTF8")?;
        }
        match self.ret {
            Some(Ret::Full) => f.write_str(" RET=FULL")?,
            Some(Ret::Headers) => f.write_str(" RET=HDRS")?,
            None => {}
        }
        if let Some(envid) = &self.envid {
            write!(f, " ENVID={}", xtext::encode(envid))?;
        }
        Ok(())
    }
}

impl fmt::Display for RecipientCommand {
    /// As it goes over the wire, without CRLF.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RCPT TO:<{}>", self.forward_path)?;
        match self.notify {
            Notify::Unspecified => {}
            Notify::Never => f.write_str(" NOTIFY=NEVER")?,
            Notify::On {
                success,
                failure,
                delay,
            } => {
                let words: Vec<_> = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")]
                    .into_iter()
                    .filter_map(|(wanted, word)| wanted.then_some(word))
                    .collect();
                if !words.is_empty() {
                    write!(f, " NOTIFY={}", words.join(","))?;
                }
            }
        }
        match self.orcpt.as_deref().and_then(|it| it.split_once(';')) {
            // ASCII in either encoding, so that it fits a server with or without SMTPUTF8.
            Some((kind, address)) if kind.eq_ignore_ascii_case("utf-8") => {
                write!(f, " ORCPT={kind};{}", xtext::encode_utf8_address(address))
            }
            Some((kind, address)) => write!(f, " ORCPT={kind};{}", xtext::encode(address)),
            None => Ok(()),
        }
    }
}
