//! Tests the client of the service against a server on a Unix socket that answers well or badly.
#![cfg(unix)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{
        atomic::{AtomicUsize, Ordering},
        Arc,
    },
    thread,
    time::{Duration, Instant},
};

use hsm_kp_openmls::{Error, Reason, Service, State};

/// Answers a request. It gets the number of the connection and the stream, and returns whether the
/// connection stays open.
type Answer = fn(usize, &mut UnixStream) -> bool;

struct Server {
    path: PathBuf,
    connections: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

impl Server {
    fn new(name: &str, answer: Answer) -> Self {
        let path = std::env::temp_dir().join(format!("hsm-kp-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let closed = Arc::new(AtomicUsize::new(0));
        let ended = closed.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                let mut stream = stream.unwrap();
                let ended = ended.clone();
                thread::spawn(move || {
                    while request(&stream) && answer(number, &mut stream) {}
                    drop(stream);
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Server {
            path,
            connections,
            closed,
        }
    }

    fn service(&self) -> Service {
        Service::unix(&self.path)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until the given number of connections is closed.
    fn wait_closed(&self, number: usize) {
        let begun = Instant::now();
        while self.closed.load(Ordering::SeqCst) < number {
            assert!(begun.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Reads a request to its end. Returns `false` if there is none.
fn request(stream: &UnixStream) -> bool {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return false;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).is_ok()
}

fn say(stream: &mut UnixStream, status: &str, body: &str) -> bool {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).is_ok()
}

const CONSUMED: &str = r#"{"state":"STATE_CONSUMED"}"#;

fn confirm(service: &Service) -> Result<State, Error> {
    service.confirm_welcome(&[1; 32], &[2; 32])
}

#[test]
fn a_connection_is_kept_for_the_next_request() {
    let server = Server::new("kept", |_, stream| say(stream, "200 OK", CONSUMED));
    let service = server.service();
    for _ in 0..3 {
        assert_eq!(confirm(&service).unwrap(), State::Consumed);
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_connection_that_was_closed_is_made_anew() {
    let server = Server::new("closed", |_, stream| {
        say(stream, "200 OK", CONSUMED);
        false
    });
    let service = server.service();
    for expected in 1..4 {
        assert_eq!(confirm(&service).unwrap(), State::Consumed);
        assert_eq!(server.connections(), expected);
        server.wait_closed(expected);
    }
}

#[test]
fn an_answer_may_come_in_parts() {
    let server = Server::new("parts", |_, stream| {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n19\r\n{}\r\n0\r\n\r\n",
            &CONSUMED[1..]
        );
        answer.bytes().all(|byte| {
            thread::sleep(Duration::from_millis(1));
            stream.write_all(&[byte]).is_ok()
        })
    });
    assert_eq!(confirm(&server.service()).unwrap(), State::Consumed);
}

#[test]
fn an_answer_that_does_not_come_is_not_waited_for() {
    let server = Server::new("silent", |_, _| {
        thread::sleep(Duration::from_secs(20));
        false
    });
    let service = server.service().timeout(Duration::from_millis(200));
    let begun = Instant::now();
    let error = service.get(&[1; 32]).unwrap_err();
    assert!(matches!(error, Error::TimedOut), "{error}");
    assert!(error.is_passing());
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(server.connections(), 1); // it is not retried
}

#[test]
fn what_changes_nothing_is_tried_again_while_the_service_is_away() {
    const AWAY: &str =
        r#"{"code":"unavailable","details":[{"type":"hsmkp.v1.ErrorDetail","value":"CA4"}]}"#;
    let server = Server::new("again", |number, stream| match number {
        1 => false, // no answer at all
        2 => {
            say(stream, "503 Service Unavailable", AWAY);
            false
        }
        _ => say(stream, "200 OK", r#"{"signature":"aGVsbG8="}"#),
    });
    let service = server.service();
    let signature = service
        .sign_with_label("alice", "LeafNodeTBS", b"")
        .unwrap();
    assert_eq!(signature, b"hello");
    assert_eq!(server.connections(), 3);

    let server = Server::new("never", |_, stream| {
        say(stream, "503 Service Unavailable", AWAY);
        false
    });
    let error = server.service().get(&[1; 32]).unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Token));
    assert_eq!(server.connections(), 3);
    let error = server.service().claim("alice", 1).unwrap_err();
    assert!(error.is_passing());
    assert_eq!(server.connections(), 4); // a claim is not retried
}

#[test]
fn what_is_not_the_service_is_told_apart() {
    for (name, answer) in [
        (
            "html",
            (|_, s| say(s, "502 Bad Gateway", "<html>")) as Answer,
        ),
        ("text", |_, s| say(s, "200 OK", "hello")),
        ("other", |_, s| say(s, "200 OK", r#"{"state":7}"#)),
        ("moved", |_, s| {
            say(s, "302 Found\r\nLocation: http://example.com/", "")
        }),
    ] {
        let server = Server::new(name, answer);
        let error = confirm(&server.service()).unwrap_err();
        assert!(matches!(error, Error::Answer(_)), "{name}: {error:?}");
        assert!(!error.is_passing());
        assert_eq!(server.connections(), 1);
    }
}

#[test]
fn a_cut_answer_is_none() {
    let server = Server::new("cut", |_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n{\"state\"");
        false
    });
    let error = confirm(&server.service()).unwrap_err();
    assert!(matches!(error, Error::Away(_)), "{error:?}");
}

#[test]
fn a_service_is_for_all_threads() {
    fn for_all_threads<T: Send + Sync>(_: &T) {}
    let server = Server::new("threads", |_, stream| say(stream, "200 OK", CONSUMED));
    let service = server.service();
    for_all_threads(&hsm_kp_openmls::ServiceProvider::new(Arc::new(
        server.service(),
    )));
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..25 {
                    assert_eq!(confirm(&service).unwrap(), State::Consumed);
                }
            });
        }
    });
    assert!(server.connections() <= 16);
}
