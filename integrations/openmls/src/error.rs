//! What can go wrong between a member and its service.

use base64::Engine;
use serde::Deserialize;

use crate::api::BASE64;

/// Why the service did not do what was requested.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The service refused, or failed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The service was not reached, or its answer was incomplete. The request may have been carried
    /// out.
    #[error("no answer from the service: {0}")]
    Away(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer did not arrive in time. The request may have been carried out.
    #[error("no answer from the service in time")]
    TimedOut,
    /// The answer is not from the service of this API.
    #[error("not an answer of hsm-kp: {0}")]
    Answer(String),
    /// A certificate, key or URL cannot be used.
    #[error("{0}")]
    Config(String),
    /// OpenMLS requested something that is not part of MLS; the text names it.
    #[error("the {0} is not one of MLS")]
    NotMls(&'static str),
}

impl Error {
    /// Returns the service's reason, if it gave one.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Error::Refused(refusal) => Some(refusal.reason),
            _ => None,
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_passing(&self) -> bool {
        match self {
            Error::Refused(refusal) => {
                refusal.code == "unavailable" || refusal.reason == Reason::Busy
            }
            Error::Away(_) | Error::TimedOut => true,
            _ => false,
        }
    }
}

/// The service's answer when it does not do what was requested.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the service refused: {message} ({code})")]
pub struct Refusal {
    /// The gRPC code as Connect writes it, such as `permission_denied`.
    pub code: String,
    /// The reason, for programs.
    pub reason: Reason,
    /// The reason, for people.
    pub message: String,
}

/// The reasons of `hsmkp.v1.Reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// No reason is given.
    Unspecified,
    /// The caller is not granted this, or the configuration does not know it.
    NotGranted,
    /// The caller has spent its quota of the period.
    QuotaSpent,
    /// Too many requests at once or a second, or another request changes the same record: try again
    /// later.
    Busy,
    /// A field of the request is missing or malformed.
    Malformed,
    /// The label is not supported for signing or decrypting.
    Label,
    /// The content belongs to another identity, key or cipher suite.
    ForeignContent,
    /// There is no such identity or key package.
    NotFound,
    /// No key packages are available.
    NoneLeft,
    /// The key package is reserved for another Welcome.
    Reserved,
    /// A Welcome used the key package up.
    Consumed,
    /// The private keys are erased.
    Erased,
    /// The state of the key package or the identity does not allow this.
    State,
    /// The Welcome or ciphertext cannot be opened: it is forged, damaged or meant for others.
    NotOpened,
    /// The token cannot be used at present.
    Token,
    /// The store cannot be used at present.
    Store,
    /// A record or a key has been changed: an operator must investigate.
    Integrity,
    /// The identity's policy does not allow the key package to be made.
    Policy,
    /// The directory cannot be reached, did not answer in time or does not let the service in.
    Directory,
    /// The directory refuses the key package.
    Refused,
    /// A reason that this crate does not know, by its number.
    Other(u64),
}

impl From<u64> for Reason {
    fn from(number: u64) -> Self {
        match number {
            0 => Reason::Unspecified,
            1 => Reason::NotGranted,
            2 => Reason::QuotaSpent,
            3 => Reason::Busy,
            4 => Reason::Malformed,
            5 => Reason::Label,
            6 => Reason::ForeignContent,
            7 => Reason::NotFound,
            8 => Reason::NoneLeft,
            9 => Reason::Reserved,
            10 => Reason::Consumed,
            11 => Reason::Erased,
            12 => Reason::State,
            13 => Reason::NotOpened,
            14 => Reason::Token,
            15 => Reason::Store,
            16 => Reason::Integrity,
            17 => Reason::Policy,
            18 => Reason::Directory,
            19 => Reason::Refused,
            other => Reason::Other(other),
        }
    }
}

/// An error as Connect encodes it in JSON.
#[derive(Deserialize)]
struct Body {
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(rename = "type")]
    name: String,
    value: String,
}

impl Refusal {
    /// Parses the body of an error answer. Returns `None` if it is not one of Connect's.
    pub(crate) fn parse(body: &[u8]) -> Option<Refusal> {
        let body: Body = serde_json::from_slice(body).ok()?;
        let reason = body
            .details
            .iter()
            .filter(|detail| detail.name == "hsmkp.v1.ErrorDetail")
            .find_map(|detail| reason_in(&BASE64.decode(&detail.value).ok()?));
        Some(Refusal {
            code: body.code,
            reason: reason.unwrap_or(Reason::Unspecified),
            message: body.message,
        })
    }
}

/// Reads field 1, a varint, of an encoded ErrorDetail. Returns `None` if it is malformed.
fn reason_in(mut detail: &[u8]) -> Option<Reason> {
    let mut reason = 0;
    while !detail.is_empty() {
        let tag = varint(&mut detail)?;
        match tag & 7 {
            0 => {
                let value = varint(&mut detail)?;
                if tag >> 3 == 1 {
                    reason = value;
                }
            }
            1 => skip(&mut detail, 8)?,
            2 => {
                let length = varint(&mut detail)?;
                skip(&mut detail, usize::try_from(length).ok()?)?;
            }
            5 => skip(&mut detail, 4)?,
            _ => return None,
        }
    }
    Some(reason.into())
}

/// Reads a base-128 varint from the front.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn skip(bytes: &mut &[u8], length: usize) -> Option<()> {
    *bytes = bytes.get(length..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_in_the_detail() {
        let body = br#"{"code":"permission_denied","message":"this is not granted to the caller",
            "details":[{"type":"hsmkp.v1.ErrorDetail","value":"CAE","debug":{"reason":"REASON_NOT_GRANTED"}}]}"#;
        let refusal = Refusal::parse(body).unwrap();
        assert_eq!(refusal.reason, Reason::NotGranted);
        assert_eq!(
            refusal.to_string(),
            "the service refused: this is not granted to the caller (permission_denied)"
        );
    }

    #[test]
    fn an_error_without_a_reason_has_its_code() {
        let refusal = Refusal::parse(br#"{"code":"unimplemented"}"#).unwrap();
        assert_eq!(refusal.reason, Reason::Unspecified);
        assert_eq!(Refusal::parse(b"<html>502</html>"), None);
        assert_eq!(Refusal::parse(br#"{"message":"no code"}"#), None);
    }

    #[test]
    fn fields_that_are_not_known_are_passed_over() {
        let detail = b"\x12\x02hi\x08\x0d\x19\0\0\0\0\0\0\0\0\x25\0\0\0\0\x28\x07";
        assert_eq!(reason_in(detail), Some(Reason::NotOpened));
        assert_eq!(reason_in(b""), Some(Reason::Unspecified));
        assert_eq!(reason_in(b"\x08\xac\x02"), Some(Reason::Other(300)));
        for cut in [
            b"\x08".as_slice(),
            b"\x12\x05hi",
            b"\x19\0",
            b"\x0b",
            &[0xff; 11],
        ] {
            assert_eq!(reason_in(cut), None, "{cut:x?}");
        }
    }

    #[test]
    fn no_bytes_panic() {
        for head in 0..=u16::MAX {
            for tail in [b"".as_slice(), b"\x01", &[0xff; 12]] {
                let _ = reason_in(&[&head.to_be_bytes(), tail].concat());
            }
        }
    }
}
