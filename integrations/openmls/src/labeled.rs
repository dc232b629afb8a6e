//! SignContent and EncryptContext (RFC 9420, Sections 5.1.2 and 5.1.3), in which OpenMLS wraps
//! content to sign and context for HPKE. Both are `opaque label<V>` and `opaque content<V>`, and
//! the label begins with "MLS 1.0 ".

use openmls::prelude::tls_codec::{DeserializeBytes, VLBytes};

use crate::Error;

const PREFIX: &[u8] = b"MLS 1.0 ";

/// A label without "MLS 1.0 ", and its content.
#[derive(Debug)]
pub(crate) struct Labeled {
    pub label: String,
    pub content: VLBytes,
}

impl Labeled {
    /// Decodes SignContent or EncryptContext to its last byte.
    pub fn parse(bytes: &[u8]) -> Result<Labeled, Error> {
        let (label, rest) =
            VLBytes::tls_deserialize_bytes(bytes).map_err(|_| Error::NotMls("label"))?;
        let content =
            VLBytes::tls_deserialize_exact_bytes(rest).map_err(|_| Error::NotMls("content"))?;
        label
            .as_slice()
            .strip_prefix(PREFIX)
            .and_then(|bare| std::str::from_utf8(bare).ok())
            .map(|bare| Labeled {
                label: bare.to_owned(),
                content,
            })
            .ok_or(Error::NotMls("label"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &[u8] = b"\x0fMLS 1.0 Welcome\x03abc";

    #[test]
    fn the_label_comes_without_its_prefix() {
        let labeled = Labeled::parse(WHOLE).unwrap();
        assert_eq!(labeled.label, "Welcome");
        assert_eq!(labeled.content.as_slice(), b"abc");
    }

    #[test]
    fn a_part_or_more_than_the_whole_is_refused() {
        for end in 0..WHOLE.len() {
            assert!(Labeled::parse(&WHOLE[..end]).is_err(), "{end} bytes");
        }
        assert!(Labeled::parse(&[WHOLE, b"\0"].concat()).is_err());
    }

    #[test]
    fn other_labels_are_refused() {
        assert!(Labeled::parse(b"\x0fMLS 2.0 Welcome\x03abc").is_err());
        assert!(Labeled::parse(b"\x0aMLS 1.0 \xff\xfe\x03abc").is_err());
    }
}
