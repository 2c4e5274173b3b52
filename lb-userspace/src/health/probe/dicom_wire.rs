//! PDUs of the DICOM upper layer over a probe's connection: dicom-ul reads and writes them, this
//! file bounds them and says what went wrong.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use dicom_ul::pdu::{
    AbortRQServiceProviderReason, AbortRQSource, PDU_HEADER_SIZE, Pdu, read_pdu, write_pdu,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::stream::Stream;
use super::words;

/// Maximum PDU that we announce, in bytes without the header.
pub const MAXIMUM_PDU: u32 = 16384;

/// An A-ASSOCIATE-AC may be longer than [`MAXIMUM_PDU`], which bounds P-DATA-TF alone.
const LONGEST_PDU: u32 = 128 * 1024;

/// How long sending an A-ABORT may take.
const ABORT_WAIT: Duration = Duration::from_millis(250);

/// Why an exchange broke off.
pub struct Broken {
    /// In words.
    pub detail: String,
    /// Whether the peer is owed an A-ABORT, and from whom.
    pub abort: Option<AbortRQSource>,
}

impl Broken {
    /// The connection is gone, or the peer ended the association itself.
    pub fn gone(detail: impl Into<String>) -> Self {
        Broken { detail: detail.into(), abort: None }
    }

    /// The peer broke the protocol.
    pub fn protocol(detail: impl Into<String>) -> Self {
        let source = AbortRQSource::ServiceProvider(AbortRQServiceProviderReason::UnexpectedPdu);
        Broken { detail: detail.into(), abort: Some(source) }
    }

    /// The peer was too slow.
    pub fn late(detail: impl Into<String>) -> Self {
        Broken { detail: detail.into(), abort: Some(AbortRQSource::ServiceUser) }
    }
}

/// A connection that carries PDUs.
pub struct Wire {
    stream: Stream,
    unread: BytesMut,
}

impl Wire {
    /// A connection on which nothing was read yet.
    pub fn new(stream: Stream) -> Self {
        Wire { stream, unread: BytesMut::with_capacity(1024) }
    }

    /// Sends a PDU.
    pub async fn send(&mut self, pdu: &Pdu, deadline: Instant) -> Result<(), Broken> {
        let mut bytes = Vec::with_capacity(512);
        write_pdu(&mut bytes, pdu)
            .map_err(|e| Broken::protocol(format!("cannot put the PDU into bytes: {e}")))?;
        let write = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        match timeout_at(deadline, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Broken::gone(words::io_error(&error))),
            Err(_) => Err(Broken::late("the server takes no data")),
        }
    }

    /// Waits for a PDU. `expected` is for words: "no A-ASSOCIATE-AC within 3 s".
    pub async fn receive(
        &mut self,
        expected: &str,
        deadline: Instant,
        within: &str,
    ) -> Result<Pdu, Broken> {
        loop {
            if let Some(pdu) = self.take()? {
                return Ok(pdu);
            }
            match timeout_at(deadline, self.stream.read_buf(&mut self.unread)).await {
                Ok(Ok(0)) => {
                    return Err(Broken::gone(format!(
                        "the server closed the connection instead of sending {expected}"
                    )));
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    let what = words::io_error(&error);
                    return Err(Broken::gone(format!("{what} while waiting for {expected}")));
                }
                Err(_) => return Err(Broken::late(format!("no {expected} {within}"))),
            }
        }
    }

    /// A whole PDU out of what was read, if there is one.
    fn take(&mut self) -> Result<Option<Pdu>, Broken> {
        if let Some(&kind) = self.unread.first()
            && !(1..=7).contains(&kind)
        {
            let start: String =
                self.unread.iter().take(8).map(|byte| format!("{byte:02X} ")).collect();
            let detail = format!("not DICOM: the answer starts with {}", start.trim_end());
            return Err(Broken::gone(detail));
        }
        let header = PDU_HEADER_SIZE as usize;
        if self.unread.len() < header {
            return Ok(None);
        }
        let length = (&self.unread[2..header]).get_u32();
        let allowed = if self.unread[0] == 4 { MAXIMUM_PDU } else { LONGEST_PDU };
        if length > allowed {
            return Err(Broken::protocol(format!(
                "the server sent a PDU of {length} bytes, longer than {allowed}"
            )));
        }
        let whole = header + length as usize;
        if self.unread.len() < whole {
            return Ok(None);
        }
        let mut bytes = self.unread.split_to(whole);
        if let Some(reject) = reserved_rejection(&bytes) {
            return Err(Broken::gone(reject));
        }
        match read_pdu(&mut bytes, LONGEST_PDU, true) {
            Ok(Some(pdu)) => Ok(Some(pdu)),
            Ok(None) => Err(Broken::protocol("the server sent a PDU whose items are cut off")),
            Err(error) => {
                Err(Broken::protocol(format!("the server sent a malformed PDU: {error}")))
            }
        }
    }

    /// Ends the association at once: A-ABORT if the peer is owed one, then FIN.
    pub async fn abandon(mut self, abort: Option<AbortRQSource>) {
        if let Some(source) = abort {
            let until = Instant::now() + ABORT_WAIT;
            // A peer that is gone or deaf cannot be told; the connection closes either way.
            self.send(&Pdu::AbortRQ { source }, until).await.ok();
        }
        self.close().await;
    }

    /// Releases the association in order, then FIN. A peer that does not answer A-RELEASE-RQ within
    /// `wait` gets the FIN all the same, and no A-ABORT: what was to be proved is proved.
    pub async fn release(mut self, wait: Duration) {
        let until = Instant::now() + wait;
        let parting = async {
            self.send(&Pdu::ReleaseRQ, until).await?;
            loop {
                match self.receive("A-RELEASE-RP", until, "").await? {
                    Pdu::ReleaseRP | Pdu::AbortRQ { .. } => return Ok::<_, Broken>(()),
                    // Both sides ask at once (PS3.8, release collision): answer, keep waiting.
                    Pdu::ReleaseRQ => self.send(&Pdu::ReleaseRP, until).await?,
                    _ => {}
                }
            }
        };
        timeout(wait, parting).await.ok();
        self.close().await;
    }

    /// FIN.
    pub async fn close(self) {
        self.stream.close().await;
    }
}

/// An A-ASSOCIATE-RJ with a result, source or reason that the standard does not have: it is a
/// rejection all the same, not a malformed PDU.
fn reserved_rejection(pdu: &[u8]) -> Option<String> {
    let (&kind, &[_, result, source, reason]) = (pdu.first()?, pdu.get(6..10)?) else {
        return None;
    };
    let known = matches!(
        (result, source, reason),
        (1 | 2, 1, 1..=10) | (1 | 2, 2, 1 | 2) | (1 | 2, 3, 0..=7)
    );
    (kind == 3 && !known).then(|| {
        format!("A-ASSOCIATE-RJ: result {result}, source {source}, reason {reason} (not in the standard)")
    })
}
