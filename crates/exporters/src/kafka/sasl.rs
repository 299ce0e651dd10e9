//! Showing a broker who we are: PLAIN and SCRAM with SHA-256 or SHA-512.
//!
//! Sources: RFC 4616 (PLAIN), RFC 5802 and RFC 7677 (SCRAM). Channel binding is not offered; names and passwords are used as they are written.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use model::base64;
use serde::Deserialize;
use sha2::{Digest, Sha256, Sha512};

/// Rounds that a broker may ask for. Kafka's own bound is 16,384; beyond this a stranger would cost us a tenth of a second with each connection.
const MAX_ROUNDS: u32 = 100_000;
/// Fewer are refused, as RFC 5802 has it: the password could be guessed from what is sent.
const MIN_ROUNDS: u32 = 4096;

/// A password, which nothing prints.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl Mechanism {
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Who we are.
#[derive(Debug, Clone)]
pub struct Login {
    pub mechanism: Mechanism,
    pub username: String,
    pub password: Password,
}

impl Login {
    /// The whole of PLAIN.
    pub fn plain(&self) -> Vec<u8> {
        format!("\0{}\0{}", self.username, self.password.0).into_bytes()
    }
}

/// A SCRAM exchange between the first message and the answer to it.
pub struct Scram<'a> {
    login: &'a Login,
    nonce: String,
}

impl<'a> Scram<'a> {
    /// `nonce` is text without commas that nobody can guess.
    pub fn new(login: &'a Login, nonce: String) -> Scram<'a> {
        Scram { login, nonce }
    }

    fn first_bare(&self) -> String {
        let name = self.login.username.replace('=', "=3D").replace(',', "=2C");
        format!("n={name},r={}", self.nonce)
    }

    pub fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.first_bare()).into_bytes()
    }

    /// Answers the server's first message. The second text is what the server must say to show that it knows the password too.
    pub fn last(&self, server_first: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
        match self.login.mechanism {
            Mechanism::ScramSha512 => self.prove::<Hmac<Sha512>, Sha512>(server_first),
            Mechanism::ScramSha256 | Mechanism::Plain => self.prove::<Hmac<Sha256>, Sha256>(server_first),
        }
    }

    fn prove<M: Mac + KeyInit, H: Digest>(&self, server_first: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
        let text = std::str::from_utf8(server_first).map_err(|_| "the broker's SCRAM message is not text")?;
        let part = |name: char| {
            let mut parts = text.split(',');
            parts
                .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
                .ok_or_else(|| format!("the broker's SCRAM message has no `{name}`"))
        };
        let nonce = part('r')?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the broker's SCRAM message does not answer ours".to_owned());
        }
        let salt = base64::decode(part('s')?).ok_or("the broker's salt is not base64")?;
        let rounds: u32 = part('i')?
            .parse()
            .map_err(|_| "the broker's number of rounds is none")?;
        if !(MIN_ROUNDS..=MAX_ROUNDS).contains(&rounds) {
            return Err(format!(
                "the broker asks for {rounds} rounds of SCRAM; {MIN_ROUNDS} to {MAX_ROUNDS} are made"
            ));
        }
        let salted = salted::<M>(self.login.password.0.as_bytes(), &salt, rounds);
        let client_key = sign::<M>(&salted, b"Client Key");
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{text},{without_proof}", self.first_bare());
        let signature = sign::<M>(&H::digest(&client_key), signed.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(&signature)
            .map(|(key, sign)| key ^ sign)
            .collect();
        let expected = sign::<M>(&sign::<M>(&salted, b"Server Key"), signed.as_bytes());
        Ok((
            format!("{without_proof},p={}", base64::encode(&proof)).into_bytes(),
            format!("v={}", base64::encode(&expected)).into_bytes(),
        ))
    }
}

fn sign<M: Mac + KeyInit>(key: &[u8], text: &[u8]) -> Vec<u8> {
    // A key of any length is one.
    let mac = <M as KeyInit>::new_from_slice(key).map(|mac| mac.chain_update(text));
    mac.map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default()
}

/// PBKDF2 with as many bytes as the hash has.
fn salted<M: Mac + KeyInit>(password: &[u8], salt: &[u8], rounds: u32) -> Vec<u8> {
    let mut round = sign::<M>(password, &[salt, &1u32.to_be_bytes()].concat());
    let mut out = round.clone();
    for _ in 1..rounds {
        round = sign::<M>(password, &round);
        out.iter_mut().zip(&round).for_each(|(out, round)| *out ^= round);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(mechanism: Mechanism, username: &str, password: &str) -> Login {
        Login {
            mechanism,
            username: username.to_owned(),
            password: Password(password.to_owned()),
        }
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let login = login(Mechanism::ScramSha256, "user", "pencil");
        let scram = Scram::new(&login, "rOprNGfwEbeRWgbNEkqO".to_owned());
        assert_eq!(scram.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let server = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (last, expected) = scram.last(server).expect("is right");
        let proof = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(String::from_utf8(last).expect("is text"), proof);
        assert_eq!(expected, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn what_a_server_may_not_say() {
        let login = login(Mechanism::ScramSha512, "a=b,c", "pw");
        let scram = Scram::new(&login, "abc".to_owned());
        assert_eq!(scram.first(), b"n,,n=a=3Db=2Cc,r=abc");
        for (wrong, why) in [
            (&b"r=abx1,s=AAAA,i=4096"[..], "does not answer ours"),
            (b"r=abc,s=AAAA,i=4096", "does not answer ours"),
            (b"r=abc1,i=4096", "no `s`"),
            (b"r=abc1,s=*,i=4096", "not base64"),
            (b"r=abc1,s=AAAA,i=4", "4 rounds"),
            (b"r=abc1,s=AAAA,i=4000000000", "4000000000 rounds"),
            (b"r=abc1,s=AAAA,i=x", "none"),
            (&[0xff], "not text"),
        ] {
            let said = scram.last(wrong).expect_err("is wrong");
            assert!(said.contains(why), "{said}");
        }
        assert!(!format!("{login:?}").contains("pw"));
    }
}
