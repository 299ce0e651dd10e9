//! Why: who may send is asked in one way at all doors, before a body is read, and is the same for gRPC and HTTP.

use http::HeaderMap;
use net::auth::{self, Auth, AuthError, Side};
use pipeline::config::{Problems, Section};

use crate::answer::{Kind, Refusal};

/// Looks up the authenticator that `auth` below `path` names, if it names one.
pub(crate) fn look_up(section: &Section<'_>, path: &[&str], auth: &mut Option<Auth>) -> Result<(), Problems> {
    let Some(named) = auth.take() else { return Ok(()) };
    let path = [path, &["auth", "authenticator"]].concat();
    let extension = section.extension(&path, &named.authenticator, auth::Settings::is_kind)?;
    let kind = extension.component.id.kind();
    let settings = if auth::basic::NAMES.contains(&kind) {
        auth::Settings::Basic(extension.parse()?)
    } else if auth::headers_setter::NAMES.contains(&kind) {
        auth::Settings::Headers(extension.parse()?)
    } else {
        auth::Settings::Bearer(extension.parse()?)
    };
    settings
        .check()
        .map_err(|mistake| extension.problem(mistake.key, mistake.why))?;
    settings
        .serves(Side::Server)
        .map_err(|why| section.problem(&path, format!("`{}` knows no senders: {why}", named.authenticator)))?;
    *auth = Some(named.with(settings));
    Ok(())
}

/// Lets in who may send; everybody where no authenticator is named.
#[derive(Clone)]
pub(crate) struct Guard(Option<auth::Server>);

impl Guard {
    /// Reads the files of the authenticator.
    pub(crate) fn new(auth: Option<&Auth>) -> Result<Guard, AuthError> {
        Ok(Guard(auth.map(Auth::server).transpose()?))
    }

    pub(crate) async fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(server) = &self.0 else { return Ok(()) };
        match server.admits(headers).await {
            true => Ok(()),
            false => Err(Refusal {
                challenge: server.challenge(),
                ..Refusal::new(Kind::Unauthorized, "valid credentials are required")
            }),
        }
    }
}
