//! One thread for what walks through the whole index.
//!
//! The allocator keeps what a thread gave back for that thread: thirty threads that take
//! turns at walking keep many times what one does. And however many administrators look
//! through a long queue, together they take one core.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, mpsc};
use std::thread;

use super::lock;

type Job = Box<dyn FnOnce() + Send>;

/// Runs steps of walks, one after the other. Its thread begins with the first of them.
#[derive(Debug, Default)]
pub struct Walker(Mutex<Option<mpsc::Sender<Job>>>);

impl Walker {
    /// Runs a step and waits for its end, on a thread that may block; none: it panicked.
    pub fn run<T: Send + 'static>(&self, step: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (done, answer) = mpsc::sync_channel(1);
        self.hand_over(Box::new(move || {
            done.send(step()).ok();
        }));
        answer.recv().ok()
    }

    fn hand_over(&self, mut job: Job) {
        let mut walker = lock(&self.0);
        loop {
            if walker.is_none() {
                *walker = begin();
            }
            let Some(jobs) = walker.as_ref() else {
                // The system has no thread to spare.
                drop(walker);
                return job();
            };
            match jobs.send(job) {
                Ok(()) => return,
                // The thread is gone.
                Err(mpsc::SendError(back)) => job = back,
            }
            *walker = None;
        }
    }
}

fn begin() -> Option<mpsc::Sender<Job>> {
    let (jobs, waiting) = mpsc::channel::<Job>();
    let thread = thread::Builder::new().name("walker".into());
    let begun = thread.spawn(move || {
        for job in waiting {
            // Whoever waits for a step that panics is told so by the end of its channel. If
            // the thread ended with it, a step that was handed over just then would be lost.
            catch_unwind(AssertUnwindSafe(job)).ok();
        }
    });
    begun.is_ok().then_some(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_runs_all_steps_and_goes_on_after_one_that_panics() {
        let walker = Walker::default();
        let first = walker.run(|| thread::current().id());
        assert_eq!(walker.run(|| thread::current().id()), first);
        assert_ne!(first, Some(thread::current().id()));
        for _ in 0..50 {
            assert_eq!(walker.run(|| panic!("a broken index")), None::<()>);
            assert_eq!(walker.run(|| thread::current().id()), first);
        }
    }
}
