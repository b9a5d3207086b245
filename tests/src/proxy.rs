//! A TCP proxy that misbehaves as networks do: it cuts, stalls one or both ways, delays and refuses, as told.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the proxy does to what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weather {
    /// Bytes towards the server wait.
    pub stall_up: bool,
    /// Bytes towards the client wait.
    pub stall_down: bool,
    /// Bytes towards the server are taken and never arrive. What follows would be garbage, so fair weather closes the
    /// connection.
    pub lose_up: bool,
    /// Bytes towards the client likewise.
    pub lose_down: bool,
    /// New connections are closed at once.
    pub refuse: bool,
    /// Each piece waits so long before it goes on.
    pub delay: Duration,
    /// Raised by [`Proxy::cut`]: connections of an earlier generation are closed.
    generation: u64,
}

/// A running proxy in front of one server.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: Arc<watch::Sender<Weather>>,
    accept: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free loopback port and passes connections to `server`.
    pub async fn start(server: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let weather = Arc::new(watch::Sender::new(Weather::default()));
        let shared = Arc::clone(&weather);
        let accept = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.borrow().refuse {
                    continue;
                }
                let weather = shared.subscribe();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    pass(client, server, weather).await;
                });
            }
        });
        Ok(Self { address, weather, accept })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what happens from now on, also on open connections.
    pub fn set(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// Closes all open connections.
    pub fn cut(&self) {
        self.set(|w| w.generation += 1);
    }

    /// Fair weather again.
    pub fn clear(&self) {
        self.set(|w| *w = Weather { generation: w.generation, ..Weather::default() });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept.abort();
        self.cut();
    }
}

async fn pass(client: TcpStream, server: TcpStream, mut weather: watch::Receiver<Weather>) {
    let born = weather.borrow().generation;
    // Small packets must not wait for each other: the faults are ours to choose.
    let (_a, _b) = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = one_way(from_client, to_server, weather.clone(), |w| (w.stall_up, w.lose_up));
    let down = one_way(from_server, to_client, weather.clone(), |w| (w.stall_down, w.lose_down));
    let cut = weather.wait_for(|w| w.generation != born);
    // Whichever ends first ends the connection: dropping the halves closes both sockets.
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = cut => {}
    }
}

async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    stalls_loses: fn(&Weather) -> (bool, bool),
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(n @ 1..) = from.read(&mut buffer).await else { return };
        let delay = weather.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if weather.wait_for(|w| !stalls_loses(w).0).await.is_err() {
            return;
        }
        if stalls_loses(&weather.borrow()).1 {
            let mut nobody_reads = tokio::io::sink();
            tokio::select! {
                _ = tokio::io::copy(&mut from, &mut nobody_reads) => {}
                _ = weather.wait_for(|w| !stalls_loses(w).1) => {}
            }
            return;
        }
        if to.write_all(buffer.get(..n).unwrap_or_default()).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = socket.split();
                    tokio::io::copy(&mut read, &mut write).await.ok();
                });
            }
        });
        address
    }

    async fn answer(client: &mut TcpStream, within: Duration) -> Option<u8> {
        let mut byte = [0];
        match tokio::time::timeout(within, client.read_exact(&mut byte)).await {
            Ok(Ok(_)) => Some(byte[0]),
            _ => None,
        }
    }

    #[tokio::test]
    async fn stalls_cuts_and_clears() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        client.write_all(b"a").await.unwrap();
        assert_eq!(answer(&mut client, Duration::from_secs(5)).await, Some(b'a'));

        proxy.set(|w| w.stall_down = true);
        client.write_all(b"b").await.unwrap();
        assert_eq!(answer(&mut client, Duration::from_millis(100)).await, None, "a stalled answer came");
        proxy.clear();
        assert_eq!(answer(&mut client, Duration::from_secs(5)).await, Some(b'b'));

        proxy.cut();
        assert_eq!(answer(&mut client, Duration::from_secs(5)).await, None, "a cut connection answered");
    }
}
