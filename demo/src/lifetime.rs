//! When a process of the demo ends: on a signal, or when whoever started it closes its standard input.

use std::future::Future;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::Router;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Resolves when the process should end.
pub async fn end() {
    let supervised = std::env::var_os("DEMO_SUPERVISED").is_some();
    let closed = async {
        if supervised {
            // Bytes on standard input mean nothing; its end does.
            let mut ignored = [0; 64];
            while matches!(tokio::io::stdin().read(&mut ignored).await, Ok(1..)) {}
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = closed => {}
        () = received(SignalKind::interrupt()) => {}
        () = received(SignalKind::terminate()) => {}
    }
}

fn received(kind: SignalKind) -> impl Future<Output = ()> {
    let stream = signal(kind);
    async move {
        match stream {
            Ok(mut stream) => {
                stream.recv().await;
            }
            // Without the handler the signal's own effect ends the process.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Serves until the process should end and the requests in flight are answered.
pub async fn serve(address: SocketAddr, router: Router) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))?;
    axum::serve(listener, router)
        .with_graceful_shutdown(end())
        .await
        .context("serving")
}
