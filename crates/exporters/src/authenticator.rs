//! Why: an exporter that names an authenticator sends what that one knows, with each request, whatever the protocol.

use net::auth::{self, Auth, Side};
use pipeline::config::{Problems, Section};

/// Settings of the extension that a section belongs to.
pub fn settings(extension: &Section<'_>) -> Result<auth::Settings, Problems> {
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
    Ok(settings)
}

/// Looks up the authenticator that `auth` below `path` names, if it names one.
pub(crate) fn look_up(section: &Section<'_>, path: &[&str], auth: &mut Option<Auth>) -> Result<(), Problems> {
    let Some(named) = auth.take() else { return Ok(()) };
    let path = [path, &["auth", "authenticator"]].concat();
    let extension = section.extension(&path, &named.authenticator, auth::Settings::is_kind)?;
    let settings = settings(&extension)?;
    settings
        .serves(Side::Client)
        .map_err(|why| section.problem(&path, format!("`{}` has nothing to send: {why}", named.authenticator)))?;
    *auth = Some(named.with(settings));
    Ok(())
}
