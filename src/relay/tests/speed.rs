//! How fast it goes.

use super::*;

#[tokio::test]
#[ignore = "a measurement: cargo test --release -- --ignored --nocapture messages_a_second"]
async fn messages_a_second() {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    for offers in [ALL, &["PIPELINING", "CHUNKING"], &[]] {
        let fake = Fake::start(Script::offering(offers)).await;
        let pool = pool();
        let job = simple(&fake, &["a@x.example"]);
        let started = tokio::time::Instant::now();
        for _ in 0..5_000 {
            assert_eq!(code(&pool.deliver(&job).await, 0), 250);
            SENT.fetch_add(1, Ordering::Relaxed);
        }
        println!(
            "{offers:?}: {:.0} messages/s",
            5_000.0 / started.elapsed().as_secs_f64()
        );
    }
}
