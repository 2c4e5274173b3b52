//! `ldap` and `ldaps`: simple bind, optionally a base search for one entry, unbind (RFC 4511).
//! ldap3_proto encodes and decodes.

use std::path::Path;

use bytes::BytesMut;
use ldap3_proto::LdapCodec;
use ldap3_proto::proto::{
    LdapBindCred, LdapBindRequest, LdapDerefAliases, LdapFilter, LdapMsg, LdapOp, LdapResult,
    LdapResultCode, LdapSearchRequest, LdapSearchScope,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout_at;
use tokio_util::codec::{Decoder, Encoder};

use super::stream::Stream;
use super::{Exchange, Finding, Verdict, secret, words};
use crate::config::model::Tls;

/// Answers to a bind or to a search for one entry without attributes are far smaller.
const LONGEST_ANSWER: usize = 256 * 1024;

/// Who to bind as and what to look for.
pub struct Ldap<'a> {
    /// For `ldaps`.
    pub tls: Option<&'a Tls>,
    /// Empty: anonymous.
    pub bind_dn: &'a str,
    /// Holds the password.
    pub password_file: Option<&'a Path>,
    /// The entry that must be there.
    pub base: Option<&'a str>,
}

/// Connects, binds, searches, unbinds, closes.
pub async fn check(exchange: &Exchange<'_>, ldap: &Ldap<'_>) -> Verdict {
    // Before connecting: a password that cannot be read is no reason to bother the server.
    let bind = bind_request(ldap).map_err(|e| Finding::fail("bind", e))?;
    let stream = exchange.open(ldap.tls, &exchange.address()).await?;
    let mut talk = Talk { exchange, stream, unread: BytesMut::new() };
    let verdict = ask(&mut talk, ldap, bind).await;
    // Unbind has no answer (RFC 4511 section 4.3); a server that is gone does not need it.
    talk.send("unbind", 3, LdapOp::UnbindRequest).await.ok();
    talk.stream.close().await;
    verdict
}

fn bind_request(ldap: &Ldap<'_>) -> Result<LdapBindRequest, String> {
    let password = match (ldap.bind_dn, ldap.password_file) {
        ("", _) => String::new(),
        (_, None) => return Err("bind_dn needs a password_file".into()),
        (_, Some(file)) => secret::read(file)?.as_password()?.to_owned(),
    };
    if !ldap.bind_dn.is_empty() && password.is_empty() {
        // RFC 4513 section 5.1.2: servers take a name without a password as anonymous.
        return Err("the password file is empty, which would bind anonymously".into());
    }
    Ok(LdapBindRequest { dn: ldap.bind_dn.to_owned(), cred: LdapBindCred::Simple(password) })
}

async fn ask(talk: &mut Talk<'_, '_>, ldap: &Ldap<'_>, bind: LdapBindRequest) -> Verdict {
    talk.send("bind", 1, LdapOp::BindRequest(bind)).await?;
    match talk.receive("bind", 1).await? {
        LdapOp::BindResponse(answer) if answer.res.code == LdapResultCode::Success => {}
        LdapOp::BindResponse(answer) => {
            return Err(Finding::fail("bind", format!("bind refused: {}", result(&answer.res))));
        }
        _ => return Err(Finding::fail("bind", "the answer to the bind is no BindResponse")),
    }
    let Some(base) = ldap.base else {
        let who = if ldap.bind_dn.is_empty() { "anonymous bind" } else { "bind" };
        return Ok(Finding::pass("bind", format!("{who}: resultCode 0")));
    };
    talk.send("search", 2, LdapOp::SearchRequest(search_request(base))).await?;
    let mut entries = 0u32;
    loop {
        match talk.receive("search", 2).await? {
            LdapOp::SearchResultEntry(_) => entries += 1,
            LdapOp::SearchResultReference(_) | LdapOp::IntermediateResponse(_) => {}
            LdapOp::SearchResultDone(done) => return found(base, entries, &done),
            _ => return Err(Finding::fail("search", "the answer is no search result")),
        }
    }
}

fn found(base: &str, entries: u32, done: &LdapResult) -> Verdict {
    match (&done.code, entries) {
        (LdapResultCode::Success, 1) => {
            Ok(Finding::pass("search", format!("found \"{base}\": resultCode 0")))
        }
        (LdapResultCode::Success, n) => {
            let detail = format!("search for \"{base}\" found {n} entries instead of one");
            Err(Finding::fail("search", detail))
        }
        _ => Err(Finding::fail("search", format!("search for \"{base}\": {}", result(done)))),
    }
}

fn search_request(base: &str) -> LdapSearchRequest {
    LdapSearchRequest {
        base: base.to_owned(),
        scope: LdapSearchScope::Base,
        aliases: LdapDerefAliases::Never,
        sizelimit: 0,
        timelimit: 0,
        typesonly: true,
        filter: LdapFilter::Present("objectClass".into()),
        // RFC 4511 section 4.5.1.8: no attributes.
        attrs: vec!["1.1".into()],
    }
}

/// `resultCode 49 (InvalidCredentials): 80090308: …`.
fn result(result: &LdapResult) -> String {
    let code = &result.code;
    let mut text = format!("resultCode {} ({code:?})", code.clone() as i64);
    if !result.message.trim().is_empty() {
        text.push_str(": ");
        text.push_str(result.message.trim());
    }
    text
}

struct Talk<'a, 'b> {
    exchange: &'a Exchange<'b>,
    stream: Stream,
    unread: BytesMut,
}

impl Talk<'_, '_> {
    async fn send(&mut self, phase: &'static str, id: i32, op: LdapOp) -> Result<(), Finding> {
        let mut bytes = BytesMut::new();
        let message = LdapMsg { msgid: id, op, ctrl: Vec::new() };
        LdapCodec::default()
            .encode(message, &mut bytes)
            .map_err(|_| Finding::fail(phase, "cannot encode the request"))?;
        let write = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        match timeout_at(self.exchange.deadline, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Finding::fail(phase, words::io_error(&error))),
            Err(_) => Err(Finding::fail(phase, "the server takes no data")),
        }
    }

    async fn receive(&mut self, phase: &'static str, id: i32) -> Result<LdapOp, Finding> {
        let fail = |detail: String| Finding::fail(phase, detail);
        let mut codec = LdapCodec::new(Some(LONGEST_ANSWER));
        loop {
            if !self.unread.is_empty() {
                let decoded = codec.decode(&mut self.unread);
                match decoded.map_err(|_| fail("what the server answers is not LDAP".into()))? {
                    Some(LdapMsg { msgid: 0, op: LdapOp::ExtendedResponse(notice), .. }) => {
                        let why = result(&notice.res);
                        return Err(fail(format!("the server ends the connection: {why}")));
                    }
                    Some(message) if message.msgid == id => return Ok(message.op),
                    Some(_) => return Err(fail("the server answers a question not asked".into())),
                    None if self.unread.len() > LONGEST_ANSWER => {
                        return Err(fail("the answer is too long".into()));
                    }
                    None => {}
                }
            }
            let read = self.stream.read_buf(&mut self.unread);
            match timeout_at(self.exchange.deadline, read).await {
                Ok(Ok(0)) => return Err(fail("the server closed the connection".into())),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(fail(words::io_error(&error))),
                Err(_) => return Err(fail(format!("no answer {}", self.exchange.within()))),
            }
        }
    }
}
