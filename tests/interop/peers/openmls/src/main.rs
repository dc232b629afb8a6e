//! A peer for openmls. It reads requests from standard input and writes replies to standard output; see
//! ../README.md.

mod client;
mod signer;
#[cfg(test)]
mod tests;

use std::{
    any::Any,
    collections::HashMap,
    io::{self, BufRead, Write},
    panic::{catch_unwind, AssertUnwindSafe},
    rc::Rc,
};

use serde_json::{json, Map, Value};

use client::{JoinKeys, Member};

/// Why a request has no result.
#[derive(Debug)]
pub enum Fault {
    /// The library refused it, or the request is malformed.
    Refused(String),
    /// The library cannot do it.
    Unsupported(String),
}

impl Fault {
    fn refused(text: impl Into<String>) -> Self {
        Fault::Refused(text.into())
    }
}

type Reply = Result<Value, Fault>;

fn main() -> io::Result<()> {
    let mut peer = Peer::default();
    while let Some(line) = read_line()? {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let reply = match catch_unwind(AssertUnwindSafe(|| peer.answer(&line))) {
            Ok(Ok(reply)) => reply,
            Ok(Err(Fault::Refused(error))) => json!({"ok": false, "error": error}),
            Ok(Err(Fault::Unsupported(error))) => {
                json!({"ok": false, "unsupported": true, "error": error})
            }
            Err(panic) => {
                json!({"ok": false, "error": format!("panic: {}", panic_text(panic.as_ref()))})
            }
        };
        write_line(&reply)?;
    }
    Ok(())
}

/// The groups that the peer is in.
#[derive(Default)]
struct Peer {
    groups: HashMap<String, Box<dyn Member>>,
    last: u64,
}

impl Peer {
    fn answer(&mut self, line: &[u8]) -> Reply {
        let request: Map<String, Value> = serde_json::from_slice(line)
            .map_err(|e| Fault::refused(format!("the request is not a JSON object: {e}")))?;
        match text(&request, "op")? {
            "hello" => Ok(hello()),
            "keyPackage" => {
                let key_package = client::key_package(suite(&request)?)?;
                Ok(json!({"ok": true, "keyPackage": hex::encode(key_package)}))
            }
            "validate" => {
                client::validate(suite(&request)?, &bytes(&request, "keyPackage")?)?;
                Ok(json!({"ok": true}))
            }
            "add" => {
                let (member, welcome) =
                    client::add(suite(&request)?, &bytes(&request, "keyPackage")?)?;
                let authenticator = hex::encode(member.epoch_authenticator());
                let group = self.enter(member);
                Ok(json!({
                    "ok": true,
                    "group": group,
                    "welcome": hex::encode(welcome),
                    "epochAuthenticator": authenticator,
                }))
            }
            "join" => {
                let keys = JoinKeys {
                    key_package: bytes(&request, "keyPackage")?,
                    init_private_key: bytes(&request, "initPrivateKey")?,
                    encryption_private_key: bytes(&request, "encryptionPrivateKey")?,
                };
                let tree = match request.get("ratchetTree") {
                    None | Some(Value::Null) => None,
                    Some(_) => Some(bytes(&request, "ratchetTree")?),
                };
                let member = client::join(
                    suite(&request)?,
                    keys,
                    &bytes(&request, "welcome")?,
                    tree.as_deref(),
                    Rc::new(ask_for_signature),
                )?;
                let authenticator = hex::encode(member.epoch_authenticator());
                let group = self.enter(member);
                Ok(json!({"ok": true, "group": group, "epochAuthenticator": authenticator}))
            }
            "commit" => {
                let public = request.get("public") == Some(&Value::Bool(true));
                let member = self.member(&request)?;
                let message = member.commit(public)?;
                Ok(json!({
                    "ok": true,
                    "message": hex::encode(message),
                    "epochAuthenticator": hex::encode(member.epoch_authenticator()),
                }))
            }
            "process" => {
                let message = bytes(&request, "message")?;
                let member = self.member(&request)?;
                member.process(&message)?;
                let authenticator = hex::encode(member.epoch_authenticator());
                Ok(json!({"ok": true, "epochAuthenticator": authenticator}))
            }
            "send" => {
                let data = bytes(&request, "data")?;
                let message = self.member(&request)?.send(&data)?;
                Ok(json!({"ok": true, "message": hex::encode(message)}))
            }
            "receive" => {
                let message = bytes(&request, "message")?;
                let data = self.member(&request)?.receive(&message)?;
                Ok(json!({"ok": true, "data": hex::encode(data)}))
            }
            op => Err(Fault::Unsupported(format!("no operation {op:?}"))),
        }
    }

    fn enter(&mut self, member: Box<dyn Member>) -> String {
        self.last += 1;
        let group = self.last.to_string();
        self.groups.insert(group.clone(), member);
        group
    }

    fn member(&mut self, request: &Map<String, Value>) -> Result<&mut Box<dyn Member>, Fault> {
        let group = text(request, "group")?;
        self.groups
            .get_mut(group)
            .ok_or_else(|| Fault::refused(format!("no group {group:?}")))
    }
}

fn hello() -> Value {
    let (rust_crypto, libcrux) = (client::rust_crypto_suites(), client::libcrux_suites());
    let suites: Vec<u16> = client::suites();
    let notes = [
        format!(
            "openmls_rust_crypto {} serves the suites {rust_crypto:?}, openmls_libcrux_crypto {} \
             serves {libcrux:?}; the first that has a suite is used.",
            env!("RUST_CRYPTO_VERSION"),
            env!("LIBCRUX_CRYPTO_VERSION"),
        ),
        "Built with the feature draft-ietf-mls-pq-ciphersuites: without it there are no suites \
         above 7, and the default capabilities list only 1, 2 and 3."
            .to_owned(),
        "The creator of a group lists the credentials basic and x509 in its capabilities; by \
         default openmls lists basic alone, and then refuses to add a client with an x509 \
         credential."
            .to_owned(),
        "openmls has no public means to make a KeyPackageBundle from keys that exist: it is made \
         by deserializing the form in which the library itself stores it."
            .to_owned(),
        "Members take commits encrypted or not; by default openmls takes encrypted ones alone."
            .to_owned(),
        "join does not validate the client's own key package again (feature \
         unchecked-conversions)."
            .to_owned(),
    ];
    json!({
        "ok": true,
        "name": "openmls",
        "version": env!("OPENMLS_VERSION"),
        "suites": suites,
        "signer": "external",
        "notes": notes,
    })
}

/// Asks the driver for a signature during a request.
fn ask_for_signature(content: &[u8]) -> Result<Vec<u8>, String> {
    write_line(&json!({"sign": hex::encode(content)})).map_err(|e| e.to_string())?;
    let line = read_line()
        .map_err(|e| e.to_string())?
        .ok_or("standard input ended where a signature was due")?;
    let reply: Map<String, Value> = serde_json::from_slice(&line)
        .map_err(|e| format!("the reply to sign is not a JSON object: {e}"))?;
    if let Some(error) = reply.get("error") {
        return Err(match error {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
    }
    match reply.get("signature") {
        Some(Value::String(text)) => {
            hex::decode(text).map_err(|e| format!("the signature is not hexadecimal: {e}"))
        }
        _ => Err("the reply to sign has neither signature nor error".to_owned()),
    }
}

fn text<'a>(request: &'a Map<String, Value>, field: &str) -> Result<&'a str, Fault> {
    request
        .get(field)
        .and_then(Value::as_str)
        .ok_or_else(|| Fault::refused(format!("the request has no string {field}")))
}

fn bytes(request: &Map<String, Value>, field: &str) -> Result<Vec<u8>, Fault> {
    hex::decode(text(request, field)?)
        .map_err(|e| Fault::refused(format!("{field} is not hexadecimal: {e}")))
}

fn suite(request: &Map<String, Value>) -> Result<u16, Fault> {
    request
        .get("suite")
        .and_then(Value::as_u64)
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| Fault::refused("the request has no suite, a number of 16 bits"))
}

/// Reads the next line without its end. Returns `None` if the input has ended.
fn read_line() -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if io::stdin().lock().read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(line))
}

fn write_line(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a text")
}
