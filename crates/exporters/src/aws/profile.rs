//! The files that AWS's command line writes: `~/.aws/credentials` and `~/.aws/config`.
//!
//! Source: AWS SDKs and Tools Reference Guide, "Shared config and credentials files".

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::credentials::{Credentials, Secret, Surroundings};

/// More than any such file has; whoever names a larger one has named another file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Settings of one profile.
type Profile = BTreeMap<String, String>;

/// What a key in a profile would mean, and what to do instead where we do not do it.
const REFUSED: [(&str, &str); 4] = [
    (
        "credential_process",
        "has `credential_process`, which would run a program; run it outside and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    (
        "role_arn",
        "has `role_arn`; write `role_arn` in the exporter's settings instead, which is assumed with whatever other credentials there are",
    ),
    (
        "sso_session",
        "signs in by SSO; set the credentials that `aws configure export-credentials` prints",
    ),
    (
        "sso_start_url",
        "signs in by SSO; set the credentials that `aws configure export-credentials` prints",
    ),
];

/// The profile's credentials, or why there are none.
pub(super) fn credentials(surroundings: &Surroundings) -> Result<Credentials, String> {
    let (name, profile) = read(surroundings)?;
    let given = |key: &str| profile.get(key).filter(|value| !value.is_empty());
    match (given("aws_access_key_id"), given("aws_secret_access_key")) {
        (Some(id), Some(secret)) => Ok(Credentials {
            access_key_id: id.clone(),
            secret_access_key: Secret::new(secret),
            session_token: given("aws_session_token").map(Secret::new),
            expires_at_seconds: None,
            source: "the shared files",
        }),
        (Some(_), None) => Err(format!("the profile `{name}` has no `aws_secret_access_key`")),
        (None, Some(_)) => Err(format!("the profile `{name}` has no `aws_access_key_id`")),
        (None, None) => {
            let refused = REFUSED.iter().find(|(key, _)| given(key).is_some());
            Err(refused.map_or_else(
                || format!("the profile `{name}` has no `aws_access_key_id`"),
                |(_, why)| format!("the profile `{name}` {why}"),
            ))
        }
    }
}

/// The profile's region.
pub(super) fn region(surroundings: &Surroundings) -> Option<String> {
    let (_, mut profile) = read(surroundings).ok()?;
    profile.remove("region").filter(|region| !region.is_empty())
}

/// The profile that is asked for, from both files; what the credentials file says counts.
fn read(surroundings: &Surroundings) -> Result<(String, Profile), String> {
    let name = surroundings
        .variable("AWS_PROFILE")
        .or_else(|| surroundings.variable("AWS_DEFAULT_PROFILE"))
        .unwrap_or_else(|| "default".to_owned());
    let place = |variable: &str, usual: &str| match surroundings.variable(variable) {
        Some(path) => Some(PathBuf::from(path)),
        None => surroundings
            .variable("HOME")
            .map(|home| Path::new(&home).join(".aws").join(usual)),
    };
    let files = [
        (place("AWS_CONFIG_FILE", "config"), true),
        (place("AWS_SHARED_CREDENTIALS_FILE", "credentials"), false),
    ];
    let mut profile: Option<Profile> = None;
    let mut looked = Vec::new();
    for (path, is_config) in files {
        let Some(path) = path else { continue };
        match text_of(&path) {
            Ok(text) => {
                if let Some(found) = section(&text, &name, is_config) {
                    profile.get_or_insert_default().extend(found);
                }
                looked.push(path.display().to_string());
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                looked.push(format!("{} (not there)", path.display()));
            }
            Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
        }
    }
    match profile {
        Some(profile) => Ok((name, profile)),
        None if looked.is_empty() => Err("there is no HOME in which .aws could lie".to_owned()),
        None => Err(format!("no profile `{name}` in {}", looked.join(" or "))),
    }
}

fn text_of(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_FILE_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// The settings of one section. In the config file all profiles but `default` are written `[profile NAME]`.
fn section(text: &str, name: &str, is_config: bool) -> Option<Profile> {
    let mut found: Option<Profile> = None;
    let mut inside = false;
    for line in text.lines() {
        let is_nested = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            let heading = rest.split(']').next().unwrap_or_default().trim();
            let profile = heading
                .strip_prefix("profile")
                .filter(|rest| rest.starts_with([' ', '\t']))
                .map(str::trim);
            inside = match profile {
                Some(profile) => is_config && profile == name,
                None => heading == name && (!is_config || name == "default"),
            };
            if inside {
                found.get_or_insert_default();
            }
        } else if inside
            && !is_nested
            && let Some((key, value)) = line.split_once('=')
            && let Some(profile) = &mut found
        {
            // A comment behind a value needs a space before it: secrets have signs like these inside.
            let value = value.split(" #").next().unwrap_or_default();
            let value = value.split(" ;").next().unwrap_or_default();
            profile.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "\
# a comment
[default]
aws_access_key_id = AKID1
aws_secret_access_key=s3cret+/= # why
[ work ]
AWS_ACCESS_KEY_ID = AKID2
aws_secret_access_key = other#one
aws_session_token = token
[half]
aws_access_key_id = AKID3
";
    const CONFIG: &str = "\
[default]
region = eu-west-1
[profile work]
region = us-west-2
s3 =
  region = nested
[profile process]
credential_process = /bin/evil
[profile role]
role_arn = arn
source_profile = default
[process]
aws_access_key_id = not a profile
";

    fn check(profile: Option<&str>, expect: Result<(&str, &str), &str>, expect_region: Option<&str>) {
        let directory = tempfile::tempdir().expect("a directory");
        let aws = directory.path().join(".aws");
        std::fs::create_dir(&aws).expect("made");
        std::fs::write(aws.join("credentials"), CREDENTIALS).expect("written");
        std::fs::write(aws.join("config"), CONFIG).expect("written");
        let home = directory.path().display().to_string();
        let mut variables = vec![("HOME", home.as_str())];
        variables.extend(profile.map(|name| ("AWS_PROFILE", name)));
        let surroundings = Surroundings::of(&variables);
        match (credentials(&surroundings), expect) {
            (Ok(got), Ok((id, secret))) => {
                assert_eq!(
                    (got.access_key_id.as_str(), got.secret_access_key.reveal()),
                    (id, secret)
                );
            }
            (Err(got), Err(expect)) => assert!(got.contains(expect), "{got}\nexpected: {expect}"),
            (got, expect) => panic!("{got:?}, expected {expect:?}"),
        }
        assert_eq!(region(&surroundings).as_deref(), expect_region);
    }

    #[test]
    fn profiles() {
        check(None, Ok(("AKID1", "s3cret+/=")), Some("eu-west-1"));
        check(Some("work"), Ok(("AKID2", "other#one")), Some("us-west-2"));
        check(Some("half"), Err("`half` has no `aws_secret_access_key`"), None);
        check(Some("process"), Err("would run a program"), None);
        check(Some("role"), Err("write `role_arn` in the exporter's settings"), None);
        check(Some("nobody"), Err("no profile `nobody` in "), None);
    }

    #[test]
    fn without_files() {
        let said = credentials(&Surroundings::of(&[("HOME", "/nowhere")])).expect_err("none");
        assert_eq!(
            said,
            "no profile `default` in /nowhere/.aws/config (not there) or /nowhere/.aws/credentials (not there)"
        );
        let said = credentials(&Surroundings::of(&[])).expect_err("none");
        assert_eq!(said, "there is no HOME in which .aws could lie");
    }
}
