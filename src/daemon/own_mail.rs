//! Mail that Penstock itself writes: one message to one person, by the door that all
//! other mail takes.

use crate::mail::{
    Body, Envelope, ForwardPath, Mailbox, Mailing, Notify, Origin, QueueId, Recipient,
    RecipientStatus, ReversePath, Rule, State,
};
use crate::smtp::WireSize;
use crate::spool::{Content, SpoolError};

use super::transaction::Office;

/// What is to be known of such a message besides its content.
pub struct OwnMail {
    /// Its name.
    pub id: QueueId,
    /// Why it is written.
    pub origin: Origin,
    /// Who hears when it fails.
    pub reverse_path: ReversePath,
    /// Who it is from.
    pub from: Mailbox,
    /// Who gets it.
    pub to: Mailbox,
    /// Through which relay.
    pub relay: String,
    /// The key and the label of its mailing.
    pub mailing: &'static str,
    /// Its Message-ID without brackets.
    pub message_id: String,
}

impl Office {
    /// Accepts a message of our own; it can leave as soon as the delivery task is told.
    pub async fn hand_in(&self, mail: OwnMail, octets: &[u8]) -> Result<Envelope, SpoolError> {
        let envelope = Envelope {
            id: mail.id,
            origin: mail.origin,
            accepted: self.clock.now(),
            reverse_path: mail.reverse_path,
            from: mail.from,
            rule: Rule::Own,
            relay: mail.relay,
            mailing: Mailing {
                key: mail.mailing.to_owned(),
                label: mail.mailing.to_owned(),
            },
            login: None,
            client: "local".to_owned(),
            message_id: mail.message_id,
            body: Body::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
            size_bytes: octets.len() as u64,
            wire_bytes: WireSize::of(octets),
            recipients: vec![Recipient {
                path: ForwardPath::Mailbox(mail.to),
                notify: Notify::Never,
                orcpt: None,
                status: RecipientStatus::Waiting,
                last: None,
            }],
            state: State::Waiting { not_before: None },
            attempts: 0,
            first_failure: None,
            warned: false,
            past: Vec::new(),
        };
        let content = Content::from(octets.to_vec());
        self.spool.commit(envelope.clone(), content).await?;
        Ok(envelope)
    }
}
