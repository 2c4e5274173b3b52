//! `dicom-echo`: associate for Verification, C-ECHO, release (PS3.4 annex A, PS3.8).

use std::time::Duration;

use dicom_ul::pdu::{
    AbortRQSource, AssociationAC, AssociationRJ, AssociationRJResult as Result_,
    AssociationRJServiceProviderASCEReason as Acse,
    AssociationRJServiceProviderPresentationReason as Presentation,
    AssociationRJServiceUserReason as User, AssociationRJSource as Source, AssociationRQ,
    PDataValue, PDataValueType, Pdu, PresentationContextProposed,
    PresentationContextResultReason as ContextReason, UserVariableItem,
};

use super::dicom_command::{self, VERIFICATION};
use super::dicom_wire::{Broken, MAXIMUM_PDU, Wire};
use super::{Exchange, Finding, Verdict};
use crate::config::model::Tls;

const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";
const IMPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2";
/// Made from a UUID (PS3.5 annex B.2), so that it is nobody else's.
const IMPLEMENTATION_CLASS: &str = "2.25.203386927386184412219387243105736410811";
const IMPLEMENTATION_VERSION: &str = "MEDLB_1";
const CONTEXT: u8 = 1;
const MESSAGE_ID: u16 = 1;

/// A command set longer than this is no C-ECHO-RSP.
const LONGEST_COMMAND: usize = 16 * 1024;
/// How long the answer to A-RELEASE-RQ is waited for.
const RELEASE_WAIT: Duration = Duration::from_secs(1);

/// What to say to the server.
pub struct Echo<'a> {
    /// Our AE title.
    pub calling_ae: &'a str,
    /// The server's.
    pub called_ae: &'a str,
    /// An association alone passes.
    pub accept_association: bool,
}

/// What became of an association.
enum Ended {
    /// It stands and is to be released; what was found on it.
    Open(Verdict),
    /// The server refused it and waits for us to close.
    Refused(Verdict),
}

/// Associates, echoes, releases, closes.
pub async fn check(exchange: &Exchange<'_>, tls: Option<&Tls>, echo: &Echo<'_>) -> Verdict {
    let stream = exchange.open(tls, &exchange.address()).await?;
    let mut wire = Wire::new(stream);
    let ended = match associate(exchange, &mut wire, echo).await {
        Ok(Association::Accepted) => match ask(exchange, &mut wire).await {
            Ok(verdict) => Ok(Ended::Open(verdict)),
            Err(broken) => Err(("echo", broken)),
        },
        Ok(Association::Settled(ended)) => Ok(ended),
        Err(broken) => Err(("associate", broken)),
    };
    match ended {
        Ok(Ended::Open(verdict)) => {
            wire.release(RELEASE_WAIT).await;
            verdict
        }
        Ok(Ended::Refused(verdict)) => {
            wire.close().await;
            verdict
        }
        Err((phase, Broken { detail, abort })) => {
            let finding = Finding::fail(phase, detail);
            wire.abandon(abort).await;
            Err(finding)
        }
    }
}

enum Association {
    /// Our context was accepted: there is an echo to send.
    Accepted,
    /// There is nothing more to ask.
    Settled(Ended),
}

async fn associate(
    exchange: &Exchange<'_>,
    wire: &mut Wire,
    echo: &Echo<'_>,
) -> Result<Association, Broken> {
    const EXPECTED: &str = "A-ASSOCIATE-AC";
    wire.send(&request(echo), exchange.deadline).await?;
    match wire.receive(EXPECTED, exchange.deadline, &exchange.within()).await? {
        Pdu::AssociationAC(accepted) => context(&accepted, echo),
        Pdu::AssociationRJ(rejected) => {
            Ok(Association::Settled(Ended::Refused(rejection(&rejected, echo))))
        }
        other => Err(unexpected(&other, EXPECTED)),
    }
}

fn request(echo: &Echo<'_>) -> Pdu {
    Pdu::AssociationRQ(AssociationRQ {
        protocol_version: 1,
        calling_ae_title: echo.calling_ae.to_owned(),
        called_ae_title: echo.called_ae.to_owned(),
        application_context_name: APPLICATION_CONTEXT.into(),
        presentation_contexts: vec![PresentationContextProposed {
            id: CONTEXT,
            abstract_syntax: VERIFICATION.into(),
            transfer_syntaxes: vec![IMPLICIT_VR_LITTLE_ENDIAN.into()],
        }],
        user_variables: vec![
            UserVariableItem::MaxLength(MAXIMUM_PDU),
            UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS.into()),
            UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION.into()),
        ],
    })
}

/// What the server made of our presentation context.
fn context(accepted: &AssociationAC, echo: &Echo<'_>) -> Result<Association, Broken> {
    let ours = accepted.presentation_contexts.iter().find(|c| c.id == CONTEXT);
    let refused = match ours.map(|c| &c.reason) {
        Some(ContextReason::Acceptance) => None,
        Some(ContextReason::UserRejection) => Some("user rejection"),
        Some(ContextReason::NoReason) => Some("no reason given"),
        Some(ContextReason::AbstractSyntaxNotSupported) => {
            Some("abstract syntax not supported: the server does not offer Verification")
        }
        Some(ContextReason::TransferSyntaxesNotSupported) => {
            Some("transfer syntax not supported: the server refuses Implicit VR Little Endian")
        }
        None => Some("the answer does not mention it"),
    };
    let verdict = match refused {
        None if echo.accept_association => {
            Ok(Finding::pass("associate", "A-ASSOCIATE-AC, association accepted"))
        }
        None => return agreed(ours.map_or("", |c| c.transfer_syntax.as_str())),
        Some(reason) if echo.accept_association => Ok(Finding::pass(
            "associate",
            format!(
                "A-ASSOCIATE-AC, association accepted (presentation context refused: {reason})"
            ),
        )),
        Some(reason) => Err(Finding::fail(
            "associate",
            format!("A-ASSOCIATE-AC: presentation context refused: {reason}"),
        )),
    };
    Ok(Association::Settled(Ended::Open(verdict)))
}

/// An accepted context must have the one transfer syntax that we offered.
fn agreed(transfer_syntax: &str) -> Result<Association, Broken> {
    if transfer_syntax.trim_end_matches(['\0', ' ']) == IMPLICIT_VR_LITTLE_ENDIAN {
        return Ok(Association::Accepted);
    }
    Err(Broken::protocol(format!(
        "A-ASSOCIATE-AC with the transfer syntax \"{transfer_syntax}\", which was not offered"
    )))
}

/// A-ASSOCIATE-RJ, as health-checks.md reads it: a wrong AE title is the check's mistake, a full
/// server is busy, everything else is a failure.
fn rejection(rejected: &AssociationRJ, echo: &Echo<'_>) -> Verdict {
    let transient = rejected.result == Result_::Transient;
    let lasting = if transient { "transient" } else { "permanent" };
    let said = |what: String| format!("A-ASSOCIATE-RJ: {what}");
    let (reason, full) = match &rejected.source {
        Source::ServiceUser(User::CalledAETitleNotRecognized) => {
            let what = format!(
                "called AE \"{}\" not recognized (the check is misconfigured: set called_ae to an \
                 AE title of the server)",
                echo.called_ae
            );
            return Err(Finding::fail("associate", said(what)));
        }
        Source::ServiceUser(User::CallingAETitleNotRecognized) => {
            let what = format!(
                "calling AE \"{}\" not recognized (the check is misconfigured: let the server know \
                 this AE title, or set calling_ae to one it knows)",
                echo.calling_ae
            );
            return Err(Finding::fail("associate", said(what)));
        }
        Source::ServiceUser(User::NoReasonGiven) => ("no reason given".into(), false),
        Source::ServiceUser(User::ApplicationContextNameNotSupported) => {
            ("application context name not supported".into(), false)
        }
        Source::ServiceUser(User::Reserved(code)) => (format!("user reason {code}"), false),
        Source::ServiceProviderASCE(Acse::NoReasonGiven) => {
            ("no reason given by the service provider".into(), false)
        }
        Source::ServiceProviderASCE(Acse::ProtocolVersionNotSupported) => {
            ("protocol version not supported".into(), false)
        }
        Source::ServiceProviderPresentation(Presentation::TemporaryCongestion) => {
            ("temporary congestion".into(), true)
        }
        Source::ServiceProviderPresentation(Presentation::LocalLimitExceeded) => {
            ("local limit exceeded".into(), true)
        }
        Source::ServiceProviderPresentation(Presentation::Reserved(code)) => {
            (format!("provider reason {code}"), false)
        }
    };
    let reason: String = reason;
    if transient || full {
        return Ok(Finding::busy(
            "associate",
            said(format!("{reason} ({lasting}): busy, not dead")),
        ));
    }
    Err(Finding::fail("associate", said(format!("{reason} ({lasting})"))))
}

/// C-ECHO on an association that stands.
async fn ask(exchange: &Exchange<'_>, wire: &mut Wire) -> Result<Verdict, Broken> {
    const EXPECTED: &str = "C-ECHO-RSP";
    let command = PDataValue {
        presentation_context_id: CONTEXT,
        value_type: PDataValueType::Command,
        is_last: true,
        data: dicom_command::echo_request(MESSAGE_ID),
    };
    wire.send(&Pdu::PData { data: vec![command] }, exchange.deadline).await?;
    let mut set = Vec::new();
    let mut whole = false;
    while !whole {
        let values = match wire.receive(EXPECTED, exchange.deadline, &exchange.within()).await? {
            Pdu::PData { data } => data,
            other => return Err(unexpected(&other, EXPECTED)),
        };
        for value in values {
            if value.presentation_context_id != CONTEXT
                || value.value_type != PDataValueType::Command
                || whole
            {
                return Err(Broken::protocol("P-DATA-TF that is no part of a C-ECHO-RSP"));
            }
            set.extend(value.data);
            whole = value.is_last;
            if set.len() > LONGEST_COMMAND {
                return Err(Broken::protocol("a command set far too long for a C-ECHO-RSP"));
            }
        }
    }
    let status = dicom_command::echo_status(&set, MESSAGE_ID).map_err(Broken::protocol)?;
    Ok(match status {
        0 => Ok(Finding::pass("echo", "C-ECHO-RSP 0000H")),
        status => Err(Finding::fail("echo", format!("C-ECHO-RSP {status:04X}H, not 0000H"))),
    })
}

/// Words for a PDU that has no place here.
fn unexpected(pdu: &Pdu, expected: &str) -> Broken {
    match pdu {
        Pdu::AbortRQ { source } => {
            let by = match source {
                AbortRQSource::ServiceUser => "by the server's application".to_owned(),
                AbortRQSource::ServiceProvider(reason) => {
                    format!("by the server's DICOM layer: {reason}")
                }
                AbortRQSource::Reserved => "reserved source".to_owned(),
            };
            Broken::gone(format!("A-ABORT ({by}) instead of {expected}"))
        }
        Pdu::ReleaseRQ => Broken::protocol(format!("A-RELEASE-RQ instead of {expected}")),
        other => Broken::protocol(format!("{} instead of {expected}", other.short_description())),
    }
}
