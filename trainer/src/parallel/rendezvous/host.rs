//! Rank 0: waits for all others, then gives each the token.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{HELLO, Hello, MOST_REASON, Meeting, MeetingError, TOKEN};

/// How often newcomers are looked for.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a newcomer has to say who it is, and to take its answer.
const MANNERS: Duration = Duration::from_secs(5);
/// Newcomers beyond the number of ranks that are listened to at one time.
const STRANGERS: usize = 64;

/// Binds the place of the meeting: its address where that is one of this machine, any address otherwise (a service's, for
/// instance).
///
/// # Errors
/// [`MeetingError::Listen`]
pub fn listen(meeting: &Meeting) -> Result<TcpListener, MeetingError> {
    let place = &meeting.place;
    TcpListener::bind((place.address.as_str(), place.port))
        .or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
            _ => TcpListener::bind((Ipv4Addr::UNSPECIFIED, place.port)),
        })
        .map_err(|source| MeetingError::Listen { place: place.shown(), source })
}

/// Waits until every rank is here and hands out `token`.
///
/// # Errors
/// [`MeetingError::Missing`], or what is wrong with a rank; the others are told the same.
pub fn host(meeting: &Meeting, listener: &TcpListener, token: &[u8; TOKEN]) -> Result<(), MeetingError> {
    let mut guests: Vec<Option<TcpStream>> = (0..meeting.ranks).map(|_| None).collect();
    let gathered = gather(meeting, listener, &mut guests);
    for guest in guests.iter_mut().flatten() {
        // A rank that does not take its answer is missed by all at the first call.
        let _ = match &gathered {
            Ok(()) => guest.write_all(&[0]).and_then(|()| guest.write_all(token)),
            Err(error) => refuse(guest, &error.to_string()),
        };
    }
    gathered
}

fn gather(
    meeting: &Meeting,
    listener: &TcpListener,
    guests: &mut [Option<TcpStream>],
) -> Result<(), MeetingError> {
    let failed = |source| MeetingError::Listen { place: meeting.place.shown(), source };
    listener.set_nonblocking(true).map_err(failed)?;
    let deadline = Instant::now() + meeting.patience;
    let mut door = Door::new(meeting.ranks + STRANGERS);
    loop {
        door.open(listener);
        while let Some((hello, mut stream)) = door.next() {
            match judge(meeting, &hello, guests) {
                Ok(()) => guests[hello.rank as usize] = Some(stream),
                Err(MeetingError::OtherRun) => {
                    // It is late, and no matter of this run.
                    let _ = refuse(&mut stream, &MeetingError::OtherRun.to_string());
                }
                Err(error) => {
                    let _ = refuse(&mut stream, &error.to_string());
                    return Err(error);
                }
            }
        }
        // One that has gone away meanwhile comes again.
        let is_here = |rank: &usize| guests[*rank].as_ref().is_some_and(is_open);
        let missing: Vec<usize> = (1..meeting.ranks).filter(|rank| !is_here(rank)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let (place, seconds) = (meeting.place.shown(), meeting.patience.as_secs());
            return Err(MeetingError::Missing { missing, place, seconds });
        }
        thread::sleep(PAUSE);
    }
}

/// Decides whether a newcomer may stay. One that comes again after its connection broke may.
fn judge(meeting: &Meeting, hello: &Hello, guests: &[Option<TcpStream>]) -> Result<(), MeetingError> {
    let own = meeting.hello();
    let Hello { rank, ranks, .. } = *hello;
    if hello.run != own.run {
        return Err(MeetingError::OtherRun);
    }
    if ranks != own.ranks || rank >= own.ranks {
        return Err(MeetingError::OtherWorld { rank, ranks, expected: meeting.ranks });
    }
    if hello.version != own.version {
        return Err(MeetingError::OtherVersion { rank, found: hello.version.clone(), expected: own.version });
    }
    if rank == 0 || guests[rank as usize].as_ref().is_some_and(is_open) {
        return Err(MeetingError::Twice { rank });
    }
    Ok(())
}

/// Whether the other side still holds a connection on which it has nothing more to say.
fn is_open(stream: &TcpStream) -> bool {
    let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    let blocking = stream.set_nonblocking(false).is_ok();
    blocking && peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

fn refuse(stream: &mut TcpStream, reason: &str) -> io::Result<()> {
    let reason = &reason.as_bytes()[..reason.len().min(MOST_REASON)];
    stream.write_all(&[1])?;
    stream.write_all(&(reason.len() as u16).to_le_bytes())?;
    stream.write_all(reason)
}

/// Takes newcomers in, each on a thread of its own until it has said who it is.
struct Door {
    sender: Sender<Option<(Hello, TcpStream)>>,
    receiver: Receiver<Option<(Hello, TcpStream)>>,
    listened_to: usize,
    most: usize,
}

impl Door {
    fn new(most: usize) -> Self {
        let (sender, receiver) = channel();
        Self { sender, receiver, listened_to: 0, most }
    }

    /// Accepts whoever waits, as long as not too many are listened to.
    fn open(&mut self, listener: &TcpListener) {
        while self.listened_to < self.most
            && let Ok((stream, _)) = listener.accept()
        {
            self.listened_to += 1;
            let sender = self.sender.clone();
            thread::spawn(move || {
                // The meeting may be over.
                let _ = sender.send(hear(stream).ok().flatten());
            });
        }
    }

    /// Returns the next rank that has said who it is.
    fn next(&mut self) -> Option<(Hello, TcpStream)> {
        while let Ok(heard) = self.receiver.try_recv() {
            self.listened_to -= 1;
            if heard.is_some() {
                return heard;
            }
        }
        None
    }
}

fn hear(mut stream: TcpStream) -> io::Result<Option<(Hello, TcpStream)>> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(MANNERS))?;
    stream.set_write_timeout(Some(MANNERS))?;
    stream.set_nodelay(true)?;
    let mut bytes = [0; HELLO];
    let deadline = Instant::now() + MANNERS;
    let mut read = 0;
    // One timeout for all, not for each byte.
    while read < HELLO {
        match stream.read(&mut bytes[read..])? {
            0 => return Ok(None),
            more => read += more,
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
    }
    Ok(Hello::from_bytes(&bytes).map(|hello| (hello, stream)))
}
