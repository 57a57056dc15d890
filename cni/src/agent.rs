//! Asks the agent one thing over its Unix socket.
//!
//! It exists to put a bound on time and size, and to turn every way of not getting an answer into error 11, on
//! which runtimes call again: an agent that is restarting must not cost a pod. It must not know any verb.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::protocol::{LINE_BYTES_MAX, Request, Response};
use crate::spec::{Code, Failure};

/// How long an answer may take. Runtimes give a sandbox minutes; a hundred at once take the agent some seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Sends `request` and returns what came back. Error 11 when the agent is away or does not answer.
pub fn ask(socket: &Path, request: &Request) -> Result<Response, Failure> {
    let away = |doing: &str, error: std::io::Error| {
        Failure::new(Code::TryAgainLater, format!("the Penstock node agent at {} is away", socket.display()))
            .details(format!("{doing}: {error}"))
    };
    let mut stream = UnixStream::connect(socket).map_err(|error| away("connecting", error))?;
    stream.set_read_timeout(Some(ANSWER_WITHIN)).map_err(|error| away("connecting", error))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN)).map_err(|error| away("connecting", error))?;

    let mut line = serde_json::to_vec(request).map_err(|error| {
        Failure::new(Code::InputOutput, "the request cannot be written").details(error.to_string())
    })?;
    line.push(b'\n');
    stream.write_all(&line).map_err(|error| away("asking", error))?;

    let mut answer = Vec::new();
    BufReader::new(&stream)
        .take(LINE_BYTES_MAX as u64)
        .read_until(b'\n', &mut answer)
        .map_err(|error| away("waiting for the answer", error))?;
    if answer.is_empty() {
        return Err(away("waiting for the answer", std::io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_slice(&answer).map_err(|error| {
        Failure::new(Code::InputOutput, "the node agent's answer cannot be read").details(error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn an_absent_agent_means_try_again_later() {
        let dir = tempfile::tempdir().unwrap();
        let failure = ask(&dir.path().join("none.sock"), &Request::Status).unwrap_err();
        assert_eq!(failure.code, Code::TryAgainLater);
        assert!(failure.message.contains("none.sock"), "{failure}");
    }

    #[test]
    fn an_agent_that_dies_while_it_works_means_try_again_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let agent = std::thread::spawn(move || drop(listener.accept()));
        assert_eq!(ask(&path, &Request::Status).unwrap_err().code, Code::TryAgainLater);
        agent.join().unwrap();
    }

    #[test]
    fn an_answer_is_handed_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let agent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(line, "{\"verb\":\"status\"}\n");
            stream.write_all(b"\"done\"\n").unwrap();
        });
        assert_eq!(ask(&path, &Request::Status).unwrap(), Response::Done);
        agent.join().unwrap();
    }
}
