//! Every other rank: says which it is, and takes the token.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use super::{MOST_REASON, Meeting, MeetingError, TOKEN};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// For one connection.
const CONNECT: Duration = Duration::from_secs(5);

/// How a try ended.
enum Answer {
    Token([u8; TOKEN]),
    Refused(String),
}

/// Looks for rank 0 until it is there, and takes what it hands out once all ranks are.
///
/// # Errors
/// [`MeetingError::NotReached`], [`MeetingError::Refused`].
pub fn join(meeting: &Meeting) -> Result<[u8; TOKEN], MeetingError> {
    let deadline = Instant::now() + meeting.patience;
    loop {
        let source = match ask(meeting, deadline) {
            Ok(Answer::Token(token)) => return Ok(token),
            Ok(Answer::Refused(reason)) => return Err(MeetingError::Refused { reason }),
            // Rank 0 is not there yet, or was of a run that has just ended.
            Err(source) => source,
        };
        if Instant::now() + PAUSE >= deadline {
            let (place, seconds) = (meeting.place.shown(), meeting.patience.as_secs());
            return Err(MeetingError::NotReached { place, seconds, source });
        }
        thread::sleep(PAUSE);
    }
}

fn ask(meeting: &Meeting, deadline: Instant) -> io::Result<Answer> {
    let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut stream = connect(meeting, || left().min(CONNECT))?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(left()))?;
    stream.write_all(&meeting.hello().to_bytes())?;
    stream.set_read_timeout(Some(left()))?;
    let mut verdict = [0];
    stream.read_exact(&mut verdict)?;
    if verdict == [0] {
        let mut token = [0; TOKEN];
        stream.read_exact(&mut token)?;
        return Ok(Answer::Token(token));
    }
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let length = u64::from(u16::from_le_bytes(length)).min(MOST_REASON as u64);
    let mut reason = Vec::new();
    stream.take(length).read_to_end(&mut reason)?;
    let reason = String::from_utf8_lossy(&reason).replace(|letter: char| letter.is_control(), " ");
    Ok(Answer::Refused(reason))
}

/// A name is looked up at each try: a pod's is not there before the pod.
fn connect(meeting: &Meeting, timeout: impl Fn() -> Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (meeting.place.address.as_str(), meeting.place.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout()) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
