//! What a process is told by its environment, with the defaults that let each be started by hand.

use std::net::{Ipv4Addr, SocketAddr};

/// A variable, or what stands for it when it is not set.
pub fn text(name: &str, default: &str) -> String {
    std::env::var(name)
        .ok()
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| default.to_owned())
}

/// A number; what is not one counts as not set.
pub fn number<N: std::str::FromStr>(name: &str, default: N) -> N {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// Loopback, on `PORT`.
pub fn address(default_port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, number("PORT", default_port)))
}

/// Base URLs of the other services, without a slash at the end.
pub fn url(name: &str, default_port: u16) -> String {
    text(name, &format!("http://127.0.0.1:{default_port}"))
        .trim_end_matches('/')
        .to_owned()
}

/// Whether something with a chance of `NAME` percent happens this time.
pub fn happens(name: &str, default_percent: u8) -> bool {
    fastrand::u8(0..100) < number(name, default_percent)
}
