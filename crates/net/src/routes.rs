//! What is mounted where: a plan of doors in which two claims on one thing are an error, and the lookup per request.

use std::collections::HashMap;
use std::sync::Arc;

use http::{StatusCode, header};

use crate::access::ReadAccess;
use crate::grpc::{self, Code};
use crate::service::{Request, Response, Service, full_body};
use crate::tls::TlsFiles;
use crate::{Endpoint, bounds};

/// Where on a door a service stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// Exactly this path.
    Path(String),
    /// This path and everything below it; the path is handed on unchanged.
    Below(String),
    /// Everything that nobody else took.
    Rest,
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            At::Path(path) => write!(f, "the path {path}"),
            At::Below(path) => write!(f, "the paths below {path}"),
            At::Rest => f.write_str("all remaining paths"),
        }
    }
}

/// One claim on a door.
pub enum Mount {
    /// An HTTP service.
    Http {
        /// Where it stands.
        at: At,
        /// Who answers.
        service: Service,
    },
    /// A gRPC service; `name` is its full name (`package.Service`), its methods are its own to tell apart.
    Grpc {
        /// The full name.
        name: &'static str,
        /// Who answers.
        service: Service,
    },
}

/// What a mount asks of the door itself. Every mount on one address must ask for the same TLS; of the numbers the
/// smallest wins.
#[derive(Clone, Debug, Default)]
pub struct DoorSettings {
    /// Certificate and key; without them the door speaks plain text.
    pub tls: Option<TlsFiles>,
    /// HTTP/2 streams at a time on one connection.
    pub max_concurrent_streams: Option<u32>,
    /// Connections at a time.
    pub max_connections: Option<usize>,
    /// `Some` for a door that hands data out: it checks `Host` and tokens, and stays on loopback unless told otherwise.
    pub read: Option<ReadAccess>,
}

/// Two claims that exclude each other, or one that may not be made.
#[derive(Debug, thiserror::Error)]
pub enum Collision {
    /// Both want the same path of the same door.
    #[error("{second} and {first} both want {at} on {address}; give one of them another address or path")]
    Path {
        address: Endpoint,
        at: String,
        first: String,
        second: String,
    },
    /// One listens on every interface, the other on one of them, with the same port.
    #[error(
        "{second} wants {second_address}, which overlaps with {first_address} of {first}; give one of them another port"
    )]
    Overlap {
        first: String,
        first_address: String,
        second: String,
        second_address: String,
    },
    /// One wants TLS and the other not, or with another certificate.
    #[error("{second} and {first} share {address} but ask for different TLS; give one of them another address")]
    Tls {
        address: Endpoint,
        first: String,
        second: String,
    },
    /// A door that reads data would be open to others.
    #[error(
        "{who} would let anyone who reaches {address} read all data; listen on a loopback address, set a token, or set `insecure: true` if the network is trusted"
    )]
    OpenToOthers { who: String, address: Endpoint },
}

/// Everything mounted on one address.
pub(crate) struct Door {
    pub(crate) address: Endpoint,
    /// Who opened it first; named when it cannot be bound.
    pub(crate) who: String,
    pub(crate) routes: Routes,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) max_concurrent_streams: u32,
    pub(crate) max_connections: usize,
}

#[derive(Default)]
pub(crate) struct Routes {
    exact: HashMap<String, Route>,
    /// Longest first, so that the first match is the closest.
    below: Vec<(String, Route)>,
    grpc: HashMap<&'static str, Route>,
    rest: Option<Route>,
}

struct Route {
    who: Arc<str>,
    service: Service,
    read: Option<Arc<ReadAccess>>,
}

impl Door {
    pub(crate) fn new(address: Endpoint, who: &str, settings: &DoorSettings) -> Self {
        Self {
            address,
            who: who.to_owned(),
            routes: Routes::default(),
            tls: settings.tls.clone(),
            max_concurrent_streams: settings
                .max_concurrent_streams
                .unwrap_or(bounds::HTTP2_MAX_CONCURRENT_STREAMS),
            max_connections: settings.max_connections.unwrap_or(bounds::MAX_CONNECTIONS),
        }
    }

    pub(crate) fn add(&mut self, who: &str, mount: Mount, settings: DoorSettings) -> Result<(), Collision> {
        if self.tls != settings.tls {
            return Err(Collision::Tls {
                address: self.address.clone(),
                first: self.who.clone(),
                second: who.to_owned(),
            });
        }
        if let Some(read) = &settings.read
            && !read.may_open(&self.address)
        {
            return Err(Collision::OpenToOthers {
                who: who.to_owned(),
                address: self.address.clone(),
            });
        }
        let route = Route {
            who: who.into(),
            service: match &mount {
                Mount::Http { service, .. } | Mount::Grpc { service, .. } => service.clone(),
            },
            read: settings.read.map(Arc::new),
        };
        let (taken, what) = match mount {
            Mount::Http { at, .. } => {
                let what = at.to_string();
                (self.routes.claim_http(at, route), what)
            }
            Mount::Grpc { name, .. } => (self.routes.claim_grpc(name, route), format!("the gRPC service {name}")),
        };
        if let Some(first) = taken {
            return Err(Collision::Path {
                address: self.address.clone(),
                at: what,
                first: first.to_string(),
                second: who.to_owned(),
            });
        }
        if let Some(n) = settings.max_concurrent_streams {
            self.max_concurrent_streams = self.max_concurrent_streams.min(n);
        }
        if let Some(n) = settings.max_connections {
            self.max_connections = self.max_connections.min(n);
        }
        Ok(())
    }
}

impl Routes {
    /// The one who already stands there, if any.
    fn claim_http(&mut self, at: At, route: Route) -> Option<Arc<str>> {
        match at {
            At::Path(path) => match self.exact.entry(path) {
                std::collections::hash_map::Entry::Occupied(o) => Some(o.get().who.clone()),
                std::collections::hash_map::Entry::Vacant(v) => {
                    v.insert(route);
                    None
                }
            },
            At::Below(path) => {
                let path = path.trim_end_matches('/').to_owned();
                if let Some((_, taken)) = self.below.iter().find(|(p, _)| *p == path) {
                    return Some(taken.who.clone());
                }
                self.below.push((path, route));
                self.below.sort_by_key(|(p, _)| std::cmp::Reverse(p.len()));
                None
            }
            At::Rest => match &self.rest {
                Some(taken) => Some(taken.who.clone()),
                None => {
                    self.rest = Some(route);
                    None
                }
            },
        }
    }

    fn claim_grpc(&mut self, name: &'static str, route: Route) -> Option<Arc<str>> {
        match self.grpc.entry(name) {
            std::collections::hash_map::Entry::Occupied(o) => Some(o.get().who.clone()),
            std::collections::hash_map::Entry::Vacant(v) => {
                v.insert(route);
                None
            }
        }
    }

    fn find(&self, path: &str, is_grpc: bool) -> Option<&Route> {
        if is_grpc
            && let Some((service, _method)) = path.strip_prefix('/').and_then(|p| p.split_once('/'))
            && let Some(route) = self.grpc.get(service)
        {
            return Some(route);
        }
        self.exact.get(path).or_else(|| {
            self.below
                .iter()
                .find(|(prefix, _)| {
                    path.strip_prefix(prefix.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                })
                .map(|(_, route)| route)
                .or(self.rest.as_ref())
        })
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, request: Request) -> Response {
        let is_grpc = grpc::is_grpc(request.headers());
        let Some(route) = self.find(request.uri().path(), is_grpc) else {
            return self.nobody(&request, is_grpc);
        };
        if let Some(read) = &route.read
            && let Err(refusal) = read.check(&request)
        {
            return refusal.into_response(is_grpc);
        }
        route.service.call(request).await
    }

    /// The answer where nobody is mounted, in the asker's protocol.
    fn nobody(&self, request: &Request, is_grpc: bool) -> Response {
        let path = request.uri().path();
        if is_grpc {
            return grpc::status_only(
                Code::Unimplemented,
                &format!("no gRPC service on this port answers {path}"),
            );
        }
        let only_grpc = !self.grpc.is_empty() && self.exact.is_empty() && self.below.is_empty() && self.rest.is_none();
        let (status, text) = if only_grpc {
            (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "this port speaks gRPC (content-type application/grpc); plain HTTP has its own port, for OTLP 4318 by default\n".to_owned(),
            )
        } else {
            (StatusCode::NOT_FOUND, format!("nothing on this port answers {path}\n"))
        };
        let mut response = http::Response::new(full_body(text));
        *response.status_mut() = status;
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            http::HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        response
    }
}
