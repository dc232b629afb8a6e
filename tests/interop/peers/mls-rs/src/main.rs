//! A peer of the interoperability test for mls-rs. ../README.md describes its protocol.

mod crypto;
mod identity;
mod peer;
mod protocol;

use std::{
    io,
    panic::{self, AssertUnwindSafe},
};

use peer::{Failure, Peer};
use serde_json::{json, Value};

fn main() -> io::Result<()> {
    let mut peer = Peer::default();
    while let Some(line) = protocol::read_line()? {
        if !line.trim_ascii().is_empty() {
            protocol::write_line(&answer(&mut peer, &line))?;
        }
    }
    Ok(())
}

fn answer(peer: &mut Peer, line: &[u8]) -> Value {
    let request: Value = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(e) => return json!({ "ok": false, "error": format!("not JSON: {e}") }),
    };

    // A group stays as it is after a panic. Later replies show what the library makes of that.
    let result = panic::catch_unwind(AssertUnwindSafe(|| peer.handle(&request)));
    match result {
        Ok(Ok(mut reply)) => {
            reply["ok"] = true.into();
            reply
        }
        Ok(Err(Failure::Refused(e))) => json!({ "ok": false, "error": e }),
        Ok(Err(Failure::Unsupported(e))) => json!({ "ok": false, "unsupported": true, "error": e }),
        Err(panic) => {
            let e = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("without a text");
            json!({ "ok": false, "error": format!("panic: {e}") })
        }
    }
}
