//! What a client of the pages can cost: a place among few, for a short time.
//!
//! Every page is small and answered at once, so a connection lives only as long as a
//! slow one needs. Whoever sends half a request, reads nothing or stays idle loses its
//! connection; keeping one open between two scrapes is not worth a place.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

/// Connections at once; the next wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// How long one may live: a page waits for the daemon twice, for five seconds each.
const LIFETIME: Duration = Duration::from_secs(15);
/// How long it may go on after we were asked to stop: an answer that is being written.
const STOPPING: Duration = Duration::from_secs(1);

/// A listener whose connections are few and short.
pub struct Bounded<L> {
    listener: L,
    places: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl<L> Bounded<L> {
    /// Takes connections of this listener, each until `stop` turns true at the latest.
    pub fn new(listener: L, stop: watch::Receiver<bool>) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(CONNECTIONS)),
            stop,
        }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Short<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let place = self.places.clone().acquire_owned().await;
        let (stream, address) = self.listener.accept().await;
        let mut stop = self.stop.clone();
        let end = async move {
            let stopped = async {
                // The sender is gone only when the daemon is.
                let _ = stop.wait_for(|it| *it).await;
                sleep(STOPPING).await;
            };
            tokio::select! {
                () = sleep(LIFETIME) => {}
                () = stopped => {}
            }
        };
        let stream = Short {
            stream,
            end: Some(Box::pin(end)),
            _place: place.ok(),
        };
        (stream, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends by itself.
pub struct Short<S> {
    stream: S,
    /// None: it has ended.
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> Short<S> {
    /// Whether there is time left; wakes the task when there is not.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(end) = &mut self.end
            && end.as_mut().poll(context).is_ready()
        {
            self.end = None;
        }
        match self.end {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Short<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Short<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;

    const WHOLE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    async fn pages() -> (std::net::SocketAddr, watch::Sender<bool>, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        let mut asked = stopping.clone();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let pages = Router::new().route("/", get(|| async { "a page" }));
            axum::serve(Bounded::new(listener, stopping), pages)
                .with_graceful_shutdown(async move {
                    asked.wait_for(|it| *it).await.unwrap();
                })
                .await
                .unwrap();
        });
        (address, stop, server)
    }

    async fn send(address: std::net::SocketAddr, octets: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(octets).await.unwrap();
        stream
    }

    async fn rest(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok();
        text
    }

    #[tokio::test(start_paused = true)]
    async fn half_requests_lose_their_places_to_whole_ones() {
        let (address, _stop, _server) = pages().await;
        let mut halves = Vec::new();
        for _ in 0..CONNECTIONS + 8 {
            halves.push(send(address, b"GET / HTTP/1.1\r\nX: ").await);
        }
        let whole = send(address, WHOLE).await;
        let text = timeout(4 * LIFETIME, rest(whole)).await.unwrap();
        assert!(text.ends_with("a page"), "{text}");
        for half in halves {
            assert_eq!(rest(half).await, "");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_waits_for_nobody_who_is_idle() {
        let (address, stop, mut server) = pages().await;
        let half = send(address, b"GET / HT").await;
        let idle = TcpStream::connect(address).await.unwrap();
        assert!(rest(send(address, WHOLE).await).await.ends_with("a page"));
        stop.send_replace(true);
        let ended = timeout(2 * STOPPING, server.join_next()).await;
        ended.expect("it has stopped").unwrap().unwrap();
        drop((half, idle));
    }
}
