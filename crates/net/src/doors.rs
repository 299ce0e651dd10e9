//! All listeners of the process: planned by mounts, opened at once, closed together.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::connection::{self, Shared};
use crate::routes::{Collision, Door, DoorSettings, Mount};
use crate::tls::TlsError;
use crate::{Endpoint, bounds};

/// Listeners to be: one per address.
#[derive(Default)]
pub struct Doors {
    doors: Vec<Door>,
}

/// Why the doors did not open. Nothing stays open when one fails.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refused the address.
    #[error("cannot listen on {address}, which {who} wants: {}", explain(source))]
    Bind {
        address: Endpoint,
        who: String,
        source: io::Error,
    },
    /// Certificate or key are unusable.
    #[error("cannot speak TLS on {address}, which {who} wants: {source}")]
    Tls {
        address: Endpoint,
        who: String,
        source: TlsError,
    },
}

/// Listening sockets that outlive the doors they stood in, so that doors which open at the same addresses miss no connection: what arrives in between waits
/// in the system's queue. Those that nobody takes close when this is dropped.
#[derive(Default)]
pub struct Listeners {
    kept: Vec<Kept>,
}

struct Kept {
    address: Endpoint,
    who: String,
    listener: TcpListener,
}

impl Listeners {
    /// Of port 0 everyone has a socket of its own.
    fn take(&mut self, address: &Endpoint, who: &str) -> Option<TcpListener> {
        let same = |kept: &Kept| kept.address == *address && (address.port() != 0 || kept.who == who);
        let at = self.kept.iter().position(same)?;
        Some(self.kept.swap_remove(at).listener)
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("another process already listens there ({error})"),
        io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 need a privilege ({error})")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("no interface of this machine has that address ({error})")
        }
        _ => error.to_string(),
    }
}

impl Doors {
    /// No door yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a service on an address, which opens a door there if none is planned yet. `who` is how messages call the owner
    /// ("receiver otlp"). Port 0 gives each `who` a door of its own.
    pub fn mount(&mut self, address: &Endpoint, who: &str, mount: Mount) -> Result<(), Collision> {
        self.mount_with(address, who, mount, DoorSettings::default())
    }

    /// As [`Doors::mount`], and says what the door itself must be like.
    pub fn mount_with(
        &mut self,
        address: &Endpoint,
        who: &str,
        mount: Mount,
        settings: DoorSettings,
    ) -> Result<(), Collision> {
        let same = |door: &&mut Door| door.address == *address && (address.port() != 0 || door.who == who);
        if let Some(door) = self.doors.iter_mut().find(same) {
            return door.add(who, mount, settings);
        }
        if let Some(other) = self.doors.iter().find(|d| d.address.overlaps(address)) {
            return Err(Collision::Overlap {
                first: other.who.clone(),
                first_address: other.address.to_string(),
                second: who.to_owned(),
                second_address: address.to_string(),
            });
        }
        let mut door = Door::new(address.clone(), who, &settings);
        door.add(who, mount, settings)?;
        self.doors.push(door);
        Ok(())
    }

    /// Planned addresses with the one who opened each.
    pub fn planned(&self) -> impl Iterator<Item = (&Endpoint, &str)> {
        self.doors.iter().map(|d| (&d.address, d.who.as_str()))
    }

    /// Binds every address, then serves all of them; or binds none and says which one failed.
    pub async fn open(self) -> Result<Open, OpenError> {
        self.open_with(&mut Listeners::default()).await
    }

    /// As [`Doors::open`], with sockets that are open already where the address is the same. If it fails, they are back where they were.
    pub async fn open_with(self, listeners: &mut Listeners) -> Result<Open, OpenError> {
        let mut bound = Vec::with_capacity(self.doors.len());
        for door in self.doors {
            let result = bind(&door, listeners).await;
            match result {
                Ok((tls, listener, local)) => bound.push((door, tls, listener, local)),
                Err(error) => {
                    let back = bound.into_iter().map(|(door, _, listener, _): (Door, _, _, _)| Kept {
                        address: door.address,
                        who: door.who,
                        listener,
                    });
                    listeners.kept.extend(back);
                    return Err(error);
                }
            }
        }
        let (close, closing) = watch::channel(false);
        let (keep, kept) = mpsc::unbounded_channel();
        let mut open = Open {
            close,
            keeps: Arc::new(AtomicBool::new(false)),
            kept,
            acceptors: JoinSet::new(),
            addresses: Vec::with_capacity(bound.len()),
            turned_away: Arc::new(AtomicU64::new(0)),
        };
        for (door, tls, listener, local) in bound {
            if !door.address.is_loopback() {
                warn!(address = %local, who = %door.who, "listening beyond loopback: anyone who reaches this address can connect");
            }
            info!(address = %local, who = %door.who, "listening");
            open.addresses.push((door.who.clone(), local));
            let leaving = Leaving {
                keeps: open.keeps.clone(),
                keep: keep.clone(),
                address: door.address,
                who: door.who,
            };
            let shared = Arc::new(Shared {
                routes: door.routes,
                tls,
                max_concurrent_streams: door.max_concurrent_streams,
            });
            open.acceptors.spawn(accept(
                listener,
                leaving,
                shared,
                door.max_connections,
                open.turned_away.clone(),
                closing.clone(),
            ));
        }
        Ok(open)
    }
}

/// Where a door's socket goes when the door closes.
struct Leaving {
    keeps: Arc<AtomicBool>,
    keep: mpsc::UnboundedSender<Kept>,
    address: Endpoint,
    who: String,
}

impl Leaving {
    fn leave(self, listener: TcpListener) {
        if self.keeps.load(Ordering::Acquire) {
            let (address, who) = (self.address, self.who);
            // It fails only if nobody waits for it, and then it closes.
            let _ = self.keep.send(Kept { address, who, listener });
        }
    }
}

async fn bind(
    door: &Door,
    listeners: &mut Listeners,
) -> Result<(Option<tokio_rustls::TlsAcceptor>, TcpListener, SocketAddr), OpenError> {
    let acceptor = door.tls.as_ref().map(|files| files.acceptor()).transpose();
    let tls = acceptor.map_err(|source| OpenError::Tls {
        address: door.address.clone(),
        who: door.who.clone(),
        source,
    })?;
    let bind = async {
        let listener = match listeners.take(&door.address, &door.who) {
            Some(listener) => listener,
            None => listen(door.address.resolve().await?)?,
        };
        let local = listener.local_addr()?;
        Ok((listener, local))
    };
    let (listener, local) = bind.await.map_err(|source| OpenError::Bind {
        address: door.address.clone(),
        who: door.who.clone(),
        source,
    })?;
    Ok((tls, listener, local))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restarted server must not wait for the last connections of its predecessor to expire.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(bounds::BACKLOG)
}

async fn accept(
    listener: TcpListener,
    leaving: Leaving,
    shared: Arc<Shared>,
    max_connections: usize,
    turned_away: Arc<AtomicU64>,
    mut closing: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(max_connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Finished tasks leave the set at once.
            Some(_) = connections.join_next() => continue,
            () = connection::closed(&mut closing) => break,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_about_one_peer(&error) => continue,
            Err(error) => {
                warn!(%error, "cannot accept connections for the moment");
                tokio::time::sleep(bounds::ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            // Closing tells a client now what a full queue would tell it after its timeout.
            let so_far = turned_away.fetch_add(1, Ordering::Relaxed) + 1;
            if so_far.is_power_of_two() {
                warn!(%peer, max_connections, so_far, "turned a connection away: the door is full");
            }
            continue;
        };
        let serving = connection::serve(shared.clone(), socket, peer, closing.clone());
        connections.spawn(async move {
            serving.await;
            drop(place);
        });
    }
    leaving.leave(listener);
    while connections.join_next().await.is_some() {}
}

/// Whether `accept` failed because of the connection it was about to return.
fn is_about_one_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Doors that are open. Dropping it closes them without waiting.
pub struct Open {
    close: watch::Sender<bool>,
    /// Whether sockets are to outlive the doors.
    keeps: Arc<AtomicBool>,
    kept: mpsc::UnboundedReceiver<Kept>,
    acceptors: JoinSet<()>,
    addresses: Vec<(String, SocketAddr)>,
    turned_away: Arc<AtomicU64>,
}

impl Open {
    /// Who listens where, with the ports that the system chose.
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// Where the door that `who` opened listens.
    pub fn address_of(&self, who: &str) -> Option<SocketAddr> {
        self.addresses
            .iter()
            .find(|(owner, _)| owner == who)
            .map(|(_, address)| *address)
    }

    /// Connections closed unserved because their door was full.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// Stops accepting, lets requests in flight finish for at most `grace`, then drops what is left. Returns whether all
    /// of them finished.
    pub async fn shutdown(self, grace: Duration) -> bool {
        self.finish(grace).await.0
    }

    /// As [`Open::shutdown`], but the sockets keep listening: connections that come now are served by the doors that open with them.
    pub async fn shutdown_keeping(self, grace: Duration) -> (bool, Listeners) {
        self.keeps.store(true, Ordering::Release);
        self.finish(grace).await
    }

    async fn finish(mut self, grace: Duration) -> (bool, Listeners) {
        self.close.send_replace(true);
        let all = async { while self.acceptors.join_next().await.is_some() {} };
        let finished = tokio::time::timeout(grace, all).await.is_ok();
        if !finished {
            debug!("the grace is over; dropping the remaining connections");
        }
        self.acceptors.shutdown().await;
        self.kept.close();
        let mut listeners = Listeners::default();
        while let Some(kept) = self.kept.recv().await {
            listeners.kept.push(kept);
        }
        (finished, listeners)
    }
}
