//! One thread for what walks through the whole index.
//!
//! The allocator keeps what a thread gave back for that thread: thirty threads that take
//! turns at walking keep many times what one does. And however many administrators look
//! through a long queue, together they take one core.

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
                // A step that panicked took the thread with it.
                Err(mpsc::SendError(back)) => job = back,
            }
            *walker = None;
        }
    }
}

fn begin() -> Option<mpsc::Sender<Job>> {
    let (jobs, waiting) = mpsc::channel::<Job>();
    let thread = thread::Builder::new().name("walker".into());
    let begun = thread.spawn(move || waiting.iter().for_each(|job| job()));
    begun.is_ok().then_some(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_runs_all_steps_and_another_one_after_a_panic() {
        let walker = Walker::default();
        let first = walker.run(|| thread::current().id());
        assert_eq!(walker.run(|| thread::current().id()), first);
        assert_eq!(walker.run(|| panic!("a broken index")), None::<()>);
        let next = walker.run(|| thread::current().id());
        assert!(next.is_some_and(|it| Some(it) != first && it != thread::current().id()));
    }
}
