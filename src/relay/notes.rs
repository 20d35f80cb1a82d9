//! What is noted down about every recipient during one transaction.

use tokio::time::Instant;

use super::{Attempt, Delivery, Job, RelayError};
use crate::clock::Clock;
use crate::mail::Stage;
use crate::smtp::Reply;

/// What is noted down during one transaction.
pub(super) struct Notes<'a> {
    pub(super) job: &'a Job,
    pub(super) clock: &'a Clock,
    started: Instant,
    pub(super) delivery: Delivery,
}

impl Notes<'_> {
    pub(super) fn settle(
        &mut self,
        recipient: usize,
        stage: Stage,
        result: Result<Reply, RelayError>,
    ) {
        self.delivery.attempts.push(Attempt {
            recipient,
            result,
            stage,
            at: self.clock.now(),
            took: self.started.elapsed(),
        });
    }

    pub(super) fn fail(&mut self, recipients: &[usize], error: &RelayError) {
        for recipient in recipients {
            self.settle(*recipient, error.stage(), Err(error.clone()));
        }
    }
}

/// A delivery that came to this error for all recipients, before any content was sent.
pub(super) fn failed(
    job: &Job,
    clock: &Clock,
    started: Instant,
    server: &str,
    error: &RelayError,
) -> Delivery {
    let mut notes = Notes::new(job, clock, started, server);
    notes.fail(&job.recipients, error);
    notes.delivery
}

impl<'a> Notes<'a> {
    pub(super) fn new(job: &'a Job, clock: &'a Clock, started: Instant, server: &str) -> Self {
        let delivery = Delivery {
            attempts: Vec::with_capacity(job.recipients.len()),
            content_sent: false,
            final_reply_at: None,
            server: server.to_owned(),
            in_doubt: false,
            dsn_passed_on: false,
        };
        Self {
            job,
            clock,
            started,
            delivery,
        }
    }
}
