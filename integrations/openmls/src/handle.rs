//! Handles, which replace private keys.

use std::fmt;

/// One of the two private keys of a key package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrivateKeyOf {
    /// The key of `KeyPackage.init_key`, to which GroupSecrets are encrypted (RFC 9420, Section
    /// 12.4.3.1).
    Init,
    /// The key of `LeafNode.encryption_key`, to which path secrets are encrypted (Section 7.6).
    Leaf,
}

impl PrivateKeyOf {
    /// The label of EncryptWithLabel that ciphertexts for this key have.
    pub(crate) fn label(self) -> &'static str {
        match self {
            PrivateKeyOf::Init => "Welcome",
            PrivateKeyOf::Leaf => "UpdatePathNode",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            PrivateKeyOf::Init => "hsm-kp:init:",
            PrivateKeyOf::Leaf => "hsm-kp:leaf:",
        }
    }
}

/// Names a private key that the service has. OpenMLS stores it as that key: the text
/// `hsm-kp:init:REF` or `hsm-kp:leaf:REF`, with the KeyPackageRef in hexadecimal. It has at least
/// 76 bytes, more than the private keys of all suites of RFC 9420, so that neither can be mistaken
/// for the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    /// The KeyPackageRef (RFC 9420, Section 5.2): 32, 48 or 64 bytes.
    pub reference: Vec<u8>,
    /// Which private key of that key package it names.
    pub of: PrivateKeyOf,
}

impl Handle {
    /// The handle as OpenMLS stores it.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    /// Parses a handle. Returns `None` for anything else, such as a private key.
    pub fn parse(bytes: &[u8]) -> Option<Handle> {
        let text = std::str::from_utf8(bytes).ok()?;
        [PrivateKeyOf::Init, PrivateKeyOf::Leaf]
            .into_iter()
            .find_map(|of| {
                let reference = from_hex(text.strip_prefix(of.prefix())?)?;
                matches!(reference.len(), 32 | 48 | 64).then_some(Handle { reference, of })
            })
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.of.prefix())?;
        self.reference
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digit = |d: u8| match d {
        b'0'..=b'9' => Some(d - b'0'),
        b'a'..=b'f' => Some(d - b'a' + 10),
        _ => None,
    };
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_read_as_they_are_written() {
        for length in [32, 48, 64] {
            for of in [PrivateKeyOf::Init, PrivateKeyOf::Leaf] {
                let handle = Handle {
                    reference: (0..length).collect(),
                    of,
                };
                assert_eq!(Handle::parse(&handle.to_bytes()), Some(handle));
            }
        }
    }

    #[test]
    fn what_is_no_handle_is_none() {
        let whole = format!("hsm-kp:init:{}", "0a".repeat(32));
        assert!(Handle::parse(whole.as_bytes()).is_some());
        for end in 0..whole.len() {
            assert_eq!(Handle::parse(&whole.as_bytes()[..end]), None, "{end} bytes");
        }
        for other in [
            whole.replace("init", "sign"),
            whole.replace("0a", "0A"),
            format!("{whole}0a"),
            format!(" {whole}"),
        ] {
            assert_eq!(Handle::parse(other.as_bytes()), None, "{other}");
        }
        for length in [32, 48, 56, 66] {
            assert_eq!(Handle::parse(&vec![0x9f; length]), None);
        }
    }
}
