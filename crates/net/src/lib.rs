//! How sockets are opened.
//!
//! **What.** [`Doors`] owns every listener of the process, one per address. Receivers and extensions *mount* routes on an
//! address; what two of them both want is an error that names both, before any socket is opened. Each door speaks HTTP/1.1
//! and HTTP/2 (prior knowledge, or ALPN when it has a certificate).
//!
//! **In.** Endpoints as a config writes them, services, limits, certificates, tokens.
//! **Out.** Requests handed to the mounted service, whose answer goes back unchanged.
//!
//! **Invariants.**
//! - Every connection, header, window, stream and wait has a bound in [`bounds`]; a peer that sends nothing, sends slowly
//!   or never reads is closed in bounded time and holds bounded memory.
//! - What is not HTTP closes its own connection and nothing else.
//! - A door that *reads* data out never opens beyond loopback without a token or an explicit `insecure`.
//! - Secrets are compared in constant time and never printed.

pub mod access;
pub mod auth;
pub mod bounds;
mod connection;
pub mod dial;
mod doors;
mod endpoint;
pub mod grpc;
pub mod proxy;
mod routes;
mod service;
pub mod socket;
mod stream;
mod tls;

pub use doors::{Doors, Listeners, Open, OpenError};
pub use endpoint::{BadEndpoint, Endpoint};
pub use routes::{At, Collision, DoorSettings, Mount};
pub use service::{
    Body, BoxError, Handler, Peer, Request, Response, Service, empty_body, from_tower, full_body, handler_fn,
};
pub use tls::{ClientTls, TlsError, TlsFiles, TlsVersion};
