//! Lines of JSON on standard input and output.

use std::io::{self, BufRead, Write};

use serde_json::{json, Value};

/// Reads the next line. Returns `None` if standard input has ended.
pub fn read_line() -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    // Locked for this line only: a request may read another one while it runs.
    let read = io::stdin().lock().read_until(b'\n', &mut line)?;
    Ok((read > 0).then_some(line))
}

pub fn write_line(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

/// Asks the sender of the requests for a signature over `data`.
pub fn ask_for_signature(data: &[u8]) -> Result<Vec<u8>, String> {
    write_line(&json!({ "sign": hex::encode(data) })).map_err(|e| e.to_string())?;
    let line = read_line()
        .map_err(|e| e.to_string())?
        .ok_or("no answer: standard input has ended")?;
    let answer: Value = serde_json::from_slice(&line).map_err(|e| e.to_string())?;

    if let Some(e) = answer.get("error") {
        return Err(e.as_str().map_or_else(|| e.to_string(), str::to_owned));
    }
    let signature = answer.get("signature").and_then(Value::as_str);
    hex::decode(signature.ok_or("the answer has neither signature nor error")?)
        .map_err(|e| format!("signature: {e}"))
}
