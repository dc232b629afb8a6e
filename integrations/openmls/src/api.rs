//! The messages of `hsmkp.v1` that members need, in the JSON form of protobuf: bytes are in base64,
//! and fields with their default value are left out.

use std::fmt;

use base64::{
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    Engine,
};
use serde::{de, Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// Accepts base64 with or without padding: the API's bytes have it, the details of Connect's errors
/// do not.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Bytes that are base64 in JSON, cleared when they are dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Bytes(pub Zeroizing<Vec<u8>>);

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Bytes(Zeroizing::new(bytes.to_vec()))
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64.encode(&*self.0)))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes in base64")
            }

            // The error does not contain the text, which may be secret.
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                BASE64
                    .decode(text)
                    .map(|bytes| Bytes(Zeroizing::new(bytes)))
                    .map_err(|_| E::custom("not base64"))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// The state of a key package in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub enum State {
    /// Being written to a folder.
    #[serde(rename = "STATE_PENDING")]
    Pending,
    /// Nobody has it yet.
    #[serde(rename = "STATE_AVAILABLE")]
    Available,
    /// A directory has it.
    #[serde(rename = "STATE_PUBLISHED")]
    Published,
    /// Someone who adds its client has it.
    #[serde(rename = "STATE_CLAIMED")]
    Claimed,
    /// It opened a Welcome that is neither confirmed nor released yet.
    #[serde(rename = "STATE_RESERVED")]
    Reserved,
    /// A Welcome used it up.
    #[serde(rename = "STATE_CONSUMED")]
    Consumed,
    /// Other key packages replaced it.
    #[serde(rename = "STATE_RETIRED")]
    Retired,
    /// Its lifetime is over.
    #[serde(rename = "STATE_EXPIRED")]
    Expired,
    /// Its private keys are erased, without a Welcome.
    #[serde(rename = "STATE_ERASED")]
    Erased,
    /// No state, or one that this crate does not know.
    #[default]
    #[serde(other)]
    Unspecified,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct KeyPackageJson {
    r#ref: Bytes,
    identity: String,
    cipher_suite: u16,
    state: State,
    mls_message: Bytes,
}

/// A key package that the service has stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyPackageRecord {
    /// The KeyPackageRef (RFC 9420, Section 5.2).
    pub reference: Vec<u8>,
    /// The name of the identity that signed it.
    pub identity: String,
    /// The number of its cipher suite.
    pub cipher_suite: u16,
    /// Its state.
    pub state: State,
    /// The KeyPackage in an MLSMessage (RFC 9420, Section 6).
    pub mls_message: Vec<u8>,
}

impl From<KeyPackageJson> for KeyPackageRecord {
    fn from(json: KeyPackageJson) -> Self {
        KeyPackageRecord {
            reference: json.r#ref.0.to_vec(),
            identity: json.identity,
            cipher_suite: json.cipher_suite,
            state: json.state,
            mls_message: json.mls_message.0.to_vec(),
        }
    }
}

/// An external pre-shared key (RFC 9420, Section 8.4).
#[derive(Clone, Serialize)]
pub struct PreSharedKey {
    id: Bytes,
    secret: Bytes,
}

impl PreSharedKey {
    /// Makes a key from its `psk_id` and its secret.
    pub fn new(id: &[u8], secret: &[u8]) -> Self {
        PreSharedKey {
            id: id.into(),
            secret: secret.into(),
        }
    }
}

impl fmt::Debug for PreSharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PreSharedKey(REDACTED)")
    }
}

/// The answer to `DecryptWithLabel`.
#[non_exhaustive]
pub struct Decrypted {
    /// The encoded GroupSecrets, or a path secret.
    pub plaintext: Zeroizing<Vec<u8>>,
    /// For the label Welcome, the argument of `ConfirmWelcome` and `ReleaseWelcome`.
    pub welcome_digest: Vec<u8>,
    /// For the label Welcome, when the reservation ends by itself: a time of RFC 3339.
    pub reserved_until: String,
}

impl fmt::Debug for Decrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decrypted(REDACTED)")
    }
}

#[derive(Serialize)]
pub(crate) struct ClaimRequest<'a> {
    pub identity: &'a str,
    pub count: u32,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ClaimResponse {
    pub key_packages: Vec<KeyPackageJson>,
}

#[derive(Serialize)]
pub(crate) struct GetRequest {
    pub r#ref: Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GetResponse {
    pub key_package: KeyPackageJson,
}

#[derive(Serialize)]
pub(crate) struct SignRequest<'a> {
    pub identity: &'a str,
    pub label: &'a str,
    pub content: Bytes,
}

#[derive(Deserialize)]
pub(crate) struct SignResponse {
    pub signature: Bytes,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DecryptRequest<'a> {
    pub r#ref: Bytes,
    pub label: &'a str,
    pub context: Bytes,
    pub kem_output: Bytes,
    pub ciphertext: Bytes,
    pub psks: &'a [PreSharedKey],
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DecryptResponse {
    pub plaintext: Bytes,
    pub welcome_digest: Bytes,
    pub reserved_until: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndRequest {
    pub r#ref: Bytes,
    pub welcome_digest: Bytes,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct EndResponse {
    pub state: State,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_with_padding_or_without() {
        for text in [r#""aGVsbG8=""#, r#""aGVsbG8""#] {
            let bytes: Bytes = serde_json::from_str(text).unwrap();
            assert_eq!(*bytes.0, b"hello");
        }
        assert_eq!(
            serde_json::to_string(&Bytes::from(b"hello".as_slice())).unwrap(),
            r#""aGVsbG8=""#
        );
        let error = serde_json::from_str::<Bytes>(r#""secret!""#).err().unwrap();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn fields_are_left_out_and_added() {
        let answer: EndResponse = serde_json::from_str("{}").unwrap();
        assert_eq!(answer.state, State::Unspecified);
        let answer: EndResponse =
            serde_json::from_str(r#"{"state":"STATE_CONSUMED","later":1}"#).unwrap();
        assert_eq!(answer.state, State::Consumed);
        let answer: EndResponse = serde_json::from_str(r#"{"state":"STATE_LATER"}"#).unwrap();
        assert_eq!(answer.state, State::Unspecified);
    }

    #[test]
    fn secrets_do_not_print() {
        let key = PreSharedKey::new(b"id", b"secret");
        assert_eq!(format!("{key:?}"), "PreSharedKey(REDACTED)");
    }
}
