//! Handshakes in memory: who is accepted, who is refused, and what is said of
//! it.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use protocol::id::FederationId;
use protocol::suite::Suite;
use rustls::{ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection};
use rustls_pki_types::{CertificateDer, ServerName};
use time::{Duration, OffsetDateTime};

use super::*;
use crate::{
    authority::{
        Authority, ISSUING_LIFETIME, IssuerChoice, ROOT_LIFETIME,
        tests::{TestAuthority, credentials_by},
    },
    bundle::root_id,
    error::date,
    explain::{CertificateProblem, ProblemKind},
    identity::{Identity, tests::identity},
    verify::{PeerRefused, verified_peer},
};

type Connections = (ClientConnection, ServerConnection);

/// Steps a handshake in memory until both sides are done, or to the first
/// error: the client's, or the server's.
fn handshake(
    client: ClientConfig,
    name: ServerName<'static>,
    server: ServerConfig,
) -> Result<Connections, rustls::Error> {
    shake(&Arc::new(client), name, &Arc::new(server))
}

fn shake(
    client: &Arc<ClientConfig>,
    name: ServerName<'static>,
    server: &Arc<ServerConfig>,
) -> Result<Connections, rustls::Error> {
    let mut client = ClientConnection::new(client.clone(), name)?;
    let mut server = ServerConnection::new(server.clone())?;
    // One round more than a handshake needs, for tickets and late alerts.
    for _ in 0..4 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut unread = bytes.as_slice();
        while !unread.is_empty() {
            server.read_tls(&mut unread).unwrap();
            server.process_new_packets()?;
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut unread = bytes.as_slice();
        while !unread.is_empty() {
            client.read_tls(&mut unread).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

fn serve(credentials: &Credentials) -> ServerConfig {
    server_config(Suite::One, credentials, None, Arc::new(())).unwrap()
}

fn dial(credentials: &Credentials) -> ClientConfig {
    client_config(credentials, TlsOptions::of(Suite::One)).unwrap().0
}

fn join(root: &RootOfTrust) -> ClientConfig {
    join_client_config(root, TlsOptions::of(Suite::One)).unwrap().0
}

/// Without what the verifiers know beside the error.
fn explained(error: &rustls::Error) -> String {
    let parties = crate::explain::Parties { peer: None, own: None, now: now() };
    crate::explain::explain_tls(error, &parties).unwrap().text
}

/// Keeps what it is told.
#[derive(Default)]
struct Told(Mutex<Vec<(Identity, CertificateProblem)>>);

impl RefusalObserver for Told {
    fn refused(&self, identity: &Identity, problem: &CertificateProblem) {
        self.0.lock().unwrap().push((identity.clone(), problem.clone()));
    }
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn long_ago() -> OffsetDateTime {
    now() - Duration::days(60)
}

#[test]
fn both_sides_of_a_handshake_learn_who_the_other_is() {
    let authority = TestAuthority::now("zhengzhou");
    let hub = authority.credentials("410100", now());
    let county = authority.credentials("410122", now());
    let (client, server) =
        handshake(dial(&county), server_name(&hub.identity), serve(&hub)).unwrap();

    for (alpn, chain, expected) in [
        (client.alpn_protocol(), client.peer_certificates(), &hub),
        (server.alpn_protocol(), server.peer_certificates(), &county),
    ] {
        let peer = verified_peer(alpn, chain, &authority.federation).unwrap();
        assert_eq!(peer.identity(), &expected.identity);
        let facts = expected.facts().unwrap();
        assert_eq!((peer.not_before(), peer.not_after()), (facts.not_before, facts.not_after));
        assert_eq!(peer.serial_hex(), facts.serial_hex);
        assert_eq!(peer.issuer(), Some(root_id(authority.issuing())));
    }
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(client.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    // Our federation is part of the check.
    let other = FederationId::new("kaifeng").unwrap();
    assert!(matches!(
        verified_peer(server.alpn_protocol(), server.peer_certificates(), &other),
        Err(PeerRefused::OtherFederation { .. })
    ));
}

#[test]
fn no_session_is_resumed() {
    let authority = TestAuthority::now("zhengzhou");
    let hub = authority.credentials("410100", now());
    let county = authority.credentials("410122", now());
    let client = Arc::new(dial(&county));
    let server = Arc::new(serve(&hub));
    for _ in 0..2 {
        let (client, server) = shake(&client, server_name(&hub.identity), &server).unwrap();
        assert_eq!(client.tls13_tickets_received(), 0);
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
    }
    // Even a client that would resume gets nothing to do it with.
    let mut keen = dial(&county);
    keen.resumption = Resumption::in_memory_sessions(8);
    let keen = Arc::new(keen);
    for _ in 0..2 {
        let (client, _) = shake(&keen, server_name(&hub.identity), &server).unwrap();
        assert_eq!(client.tls13_tickets_received(), 0);
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn certificates_of_another_authority_are_refused_on_both_sides() {
    let ours = TestAuthority::now("zhengzhou");
    let theirs = TestAuthority::now("zhengzhou");
    let hub = ours.credentials("410100", now());
    let stranger = theirs.credentials("410122", now());

    // The client refuses the server.
    let error = handshake(dial(&stranger), server_name(&hub.identity), serve(&hub)).unwrap_err();
    let text = explained(&error);
    assert!(text.contains("not issued under our root CA"), "{error:?}: {text}");

    // The server refuses the client, which trusts the server's root.
    let mixed = Credentials { roots: hub.roots.clone(), ..stranger };
    let error = handshake(dial(&mixed), server_name(&hub.identity), serve(&hub)).unwrap_err();
    let text = explained(&error);
    assert!(text.contains("not issued under our root CA"), "{error:?}: {text}");
}

#[test]
fn expired_certificates_are_refused_on_both_sides_with_both_dates() {
    let authority = TestAuthority::at("zhengzhou", long_ago());
    let hub = authority.credentials("410100", now());
    let county = authority.credentials("410122", now());
    let old_hub = authority.credentials("410100", long_ago());
    let old_county = authority.credentials("410122", long_ago());
    let ended = date(old_hub.not_after().unwrap());
    for (client, server) in [(&county, &old_hub), (&old_county, &hub)] {
        let error =
            handshake(dial(client), server_name(&server.identity), serve(server)).unwrap_err();
        let text = explained(&error);
        assert!(text.contains(&format!("expired on {}", &ended[..10])), "{error:?}: {text}");
        assert!(text.contains(&date(now())[..10]), "{text}");
    }
}

#[test]
fn a_certificate_of_the_future_points_at_the_clocks() {
    let authority = TestAuthority::now("zhengzhou");
    let hub = authority.credentials("410100", now() + Duration::days(2));
    let county = authority.credentials("410122", now());
    let error = handshake(dial(&county), server_name(&hub.identity), serve(&hub)).unwrap_err();
    let text = explained(&error);
    assert!(text.contains("was ahead, or this machine's is behind"), "{error:?}: {text}");
}

#[test]
fn another_node_than_the_dialled_one_is_refused() {
    let authority = TestAuthority::now("zhengzhou");
    let other = authority.credentials("410123", now());
    let county = authority.credentials("410122", now());
    for dialled in ["410100", "-a"] {
        let error =
            handshake(dial(&county), server_name(&identity("zhengzhou", dialled)), serve(&other))
                .unwrap_err();
        let text = explained(&error);
        assert!(text.contains("410123.zhengzhou.creditsync.internal"), "{error:?}: {text}");
    }
}

#[test]
fn a_client_without_certificate_is_no_verified_peer() {
    let authority = TestAuthority::now("zhengzhou");
    let hub = authority.credentials("410100", now());
    let root = RootOfTrust::from_certificate(authority.root()).unwrap();
    let mut anonymous = join(&root);
    anonymous.alpn_protocols = vec![ALPN.to_vec()];
    let (_, server) = handshake(anonymous, server_name(&hub.identity), serve(&hub)).unwrap();
    assert!(matches!(
        verified_peer(server.alpn_protocol(), server.peer_certificates(), &authority.federation),
        Err(PeerRefused::NoCertificate)
    ));
}

#[test]
fn joining_needs_no_certificate_but_the_token_s_root() {
    let authority = TestAuthority::now("zhengzhou");
    let hub = authority.credentials("410100", now());
    let root = RootOfTrust::from_certificate(authority.root()).unwrap();
    let (client, server) = handshake(join(&root), server_name(&hub.identity), serve(&hub)).unwrap();
    assert_eq!(client.alpn_protocol(), Some(ALPN_JOIN));
    assert_eq!(server.peer_certificates(), None);
    assert!(matches!(
        verified_peer(server.alpn_protocol(), None, &authority.federation),
        Err(PeerRefused::Protocol(_))
    ));
    // With a certificate the protocol still decides.
    assert!(matches!(
        verified_peer(Some(ALPN_JOIN), Some(&hub.chain), &authority.federation),
        Err(PeerRefused::Protocol(_))
    ));
    assert!(matches!(
        verified_peer(None, Some(&hub.chain), &authority.federation),
        Err(PeerRefused::Protocol(_))
    ));

    let other = TestAuthority::now("zhengzhou");
    let other_root = RootOfTrust::from_certificate(other.root()).unwrap();
    // The same name with another key, and another name with the same key.
    for root in
        [other_root.clone(), RootOfTrust { subject: root.subject.clone(), spki: other_root.spki }]
    {
        let error = handshake(join(&root), server_name(&hub.identity), serve(&hub)).unwrap_err();
        let text = explained(&error);
        assert!(text.contains("not issued under our root CA"), "{error:?}: {text}");
    }
}

#[test]
fn another_protocol_is_refused_in_the_handshake() {
    let authority = TestAuthority::now("zhengzhou");
    let hub = authority.credentials("410100", now());
    let mut config = dial(&authority.credentials("410122", now()));
    config.alpn_protocols = vec![b"h3".to_vec()];
    let error = handshake(config, server_name(&hub.identity), serve(&hub)).unwrap_err();
    assert!(explained(&error).contains("does not speak our protocol"), "{error:?}");
}

#[test]
fn keys_are_exchanged_as_the_suite_says_and_a_client_can_leave_the_post_quantum_group_out() {
    let authority = TestAuthority::now("zhengzhou");
    let hub = authority.credentials("410100", now());
    let county = authority.credentials("410122", now());
    let other = Suite::Artificial;
    for (suite, post_quantum, expected) in [
        (Suite::One, true, NamedGroup::X25519MLKEM768),
        (Suite::One, false, NamedGroup::X25519),
        (other, true, NamedGroup::secp384r1),
        (other, false, NamedGroup::secp384r1),
    ] {
        let serve = |hub| server_config(suite, hub, None, Arc::new(())).unwrap();
        let options = TlsOptions { post_quantum, suite };
        let (config, _) = client_config(&county, options).unwrap();
        let (client, _) = handshake(config, server_name(&hub.identity), serve(&hub)).unwrap();
        assert_eq!(client.negotiated_key_exchange_group().unwrap().name(), expected);
        let root = RootOfTrust::from_certificate(authority.root()).unwrap();
        let (config, _) = join_client_config(&root, options).unwrap();
        let (client, _) = handshake(config, server_name(&hub.identity), serve(&hub)).unwrap();
        assert_eq!(client.negotiated_key_exchange_group().unwrap().name(), expected);
    }
}

#[test]
fn joiners_see_the_certificate_that_leads_to_their_tokens_root() {
    let federation = TestAuthority::now("zhengzhou");
    let foreign = TestAuthority::now("zhengzhou");
    let both = vec![federation.root().clone(), foreign.root().clone()];
    let month = Duration::days(30);
    let own = credentials_by(&foreign, "410100", now(), month, both.clone());
    let enrolment = federation.credentials("410100", now());
    let config = || server_config(Suite::One, &own, Some(&enrolment), Arc::new(())).unwrap();
    let name = || server_name(&own.identity);

    let root = RootOfTrust::from_certificate(federation.root()).unwrap();
    let (client, _) = handshake(join(&root), name(), config()).unwrap();
    assert_eq!(client.peer_certificates().unwrap(), enrolment.chain);
    let county = credentials_by(&federation, "410122", now(), month, both);
    let (client, server) = handshake(dial(&county), name(), config()).unwrap();
    assert_eq!(client.peer_certificates().unwrap(), own.chain);
    assert_eq!(server.peer_certificates().unwrap(), county.chain);

    // Who offers both gets replication, and its certificate.
    let mut both = dial(&county);
    both.alpn_protocols = vec![ALPN_JOIN.to_vec(), ALPN.to_vec()];
    let (client, server) = handshake(both, name(), config()).unwrap();
    assert_eq!(server.alpn_protocol(), Some(ALPN));
    assert_eq!(client.peer_certificates().unwrap(), own.chain);
}

#[test]
fn the_server_is_told_of_genuine_certificates_whose_dates_are_wrong() {
    let authority = TestAuthority::at("zhengzhou", long_ago());
    let stranger = TestAuthority::at("zhengzhou", long_ago());
    let hub = authority.credentials("410100", now());
    let attempt = |shown: &Credentials| {
        let told = Arc::new(Told::default());
        let config = server_config(Suite::One, &hub, None, told.clone()).unwrap();
        let trusting = Credentials {
            roots: hub.roots.clone(),
            chain: shown.chain.clone(),
            key: shown.key.clone_key(),
            identity: shown.identity.clone(),
        };
        let refused = handshake(dial(&trusting), server_name(&hub.identity), config).is_err();
        let told = std::mem::take(&mut *told.0.lock().unwrap());
        (refused, told)
    };

    let expired = authority.credentials("410122", long_ago());
    let (refused, told) = attempt(&expired);
    assert!(refused);
    let [(who, problem)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(who, &expired.identity);
    assert_eq!(problem.kind, ProblemKind::Expired);
    let facts = expired.facts().unwrap();
    assert_eq!(problem.validity, Some((facts.not_before, facts.not_after)));
    for part in [&date(facts.not_before), &date(facts.not_after), &date(now())[..10]] {
        assert!(problem.text.contains(part), "{part}: {problem}");
    }

    let (refused, told) = attempt(&authority.credentials("410122", now() + Duration::days(3)));
    assert!(refused);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].1.kind, ProblemKind::NotYetValid);

    // A stranger's certificate with our county's names is not worth a word.
    for made_up in [long_ago(), now(), now() + Duration::days(3)] {
        let (refused, told) = attempt(&stranger.credentials("410122", made_up));
        assert!(refused && told.is_empty(), "{told:?}");
    }
    let (refused, told) = attempt(&authority.credentials("410122", now()));
    assert!(!refused && told.is_empty(), "{told:?}");
}

#[test]
fn the_dialler_keeps_the_reason_with_its_dates() {
    let authority = TestAuthority::at("zhengzhou", long_ago());
    let county = authority.credentials("410122", now());
    let (config, failure) = client_config(&county, TlsOptions::of(Suite::One)).unwrap();
    let config = Arc::new(config);
    assert_eq!(failure.problem(now()), None);

    let old = authority.credentials("410100", long_ago());
    let attempt = |hub: &Credentials, name: &Identity| {
        let _ = shake(&config, server_name(name), &Arc::new(serve(hub)));
        failure.problem(now())
    };
    let problem = attempt(&old, &old.identity).unwrap();
    assert_eq!(problem.kind, ProblemKind::Expired);
    let ended = date(old.not_after().unwrap());
    assert!(problem.text.contains(&format!("node/410100 expired on {ended}")), "{problem}");
    assert!(matches!(
        failure.error(),
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::ExpiredContext { .. }))
    ));

    let hub = authority.credentials("410100", now());
    let problem = attempt(&hub, &identity("zhengzhou", "410199")).unwrap();
    assert_eq!(problem.kind, ProblemKind::WrongName);
    let stranger = TestAuthority::now("zhengzhou").credentials("410100", now());
    assert_eq!(attempt(&stranger, &hub.identity).unwrap().kind, ProblemKind::UnknownIssuer);
    assert_eq!(attempt(&hub, &hub.identity), None, "a success forgets");

    // 45: certificate_expired (RFC 8446, 6.2).
    let ours = failure.explain_alert(45, now()).unwrap();
    assert!(ours.text.contains(&date(county.not_after().unwrap())), "{ours}");
}

/// The first generation, and a second whose certificates lead to both roots.
fn two_generations() -> (TestAuthority, Authority, CertificateDer<'static>) {
    let first = TestAuthority::now("zhengzhou");
    let (dirs, federation) = (first.dirs(), &first.federation);
    let new_root = dirs.create_root(federation, 2, now(), ROOT_LIFETIME).unwrap();
    dirs.cross_sign(1, 2, now()).unwrap();
    dirs.create_issuing(federation, 2, 2, now(), ISSUING_LIFETIME).unwrap();
    let choice = IssuerChoice { issuing: 2, root: 2, cross_by: vec![1] };
    let second = Authority::open(dirs, &choice).unwrap();
    (first, second, new_root)
}

#[test]
fn nodes_of_both_generations_of_roots_meet() {
    let (first, second, new_root) = two_generations();
    let old_root = first.root().clone();
    let month = Duration::days(30);
    let old = credentials_by(&first, "410122", now(), month, vec![old_root.clone()]);
    let both = vec![old_root.clone(), new_root.clone()];
    let hub = credentials_by(&second, "410100", now(), month, both);
    let new = credentials_by(&second, "410123", now(), month, vec![new_root]);
    for county in [&old, &new] {
        let (client, server) =
            handshake(dial(county), server_name(&hub.identity), serve(&hub)).unwrap();
        let alpn = server.alpn_protocol();
        let peer = verified_peer(alpn, server.peer_certificates(), &first.federation).unwrap();
        assert_eq!(peer.identity(), &county.identity);
        assert_eq!(peer.issuer(), Some(root_id(&county.chain[1])));
        verified_peer(client.alpn_protocol(), client.peer_certificates(), &first.federation)
            .unwrap();
    }
    // Who trusts only the new root does not take the old generation.
    handshake(dial(&new), server_name(&old.identity), serve(&old)).unwrap_err();
}

/// Who holds the stolen, revoked key of an issuing CA cannot hide behind another
/// certificate with that CA's name.
#[test]
fn the_issuer_that_is_named_is_the_one_that_counted() {
    let authority = TestAuthority::now("zhengzhou");
    let hub = authority.credentials("410100", now());
    let county = authority.credentials("410122", now());

    // The CA's name and key, signed by itself.
    let (dirs, issuing) = (authority.dirs(), authority.issuing());
    let pair =
        rcgen::KeyPair::from_pem(&std::fs::read_to_string(dirs.keys.file("issuing.key")).unwrap())
            .unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "zhengzhou");
    params.distinguished_name.push(rcgen::DnType::CommonName, "creditsync issuing zhengzhou");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let fake: CertificateDer<'static> = params.self_signed(&pair).unwrap().into();
    let name_of = |cert: &CertificateDer<'_>| crate::identity::facts(cert).unwrap().subject;
    assert_eq!(name_of(&fake), name_of(issuing));

    let leaf = county.chain[0].clone();
    let shown = |chain: Vec<CertificateDer<'static>>| {
        let shown = Credentials {
            chain,
            key: county.key.clone_key(),
            roots: county.roots.clone(),
            identity: county.identity.clone(),
        };
        let handshake = handshake(dial(&shown), server_name(&hub.identity), serve(&hub));
        let (_, server) = handshake.ok()?;
        let alpn = server.alpn_protocol();
        Some(verified_peer(alpn, server.peer_certificates(), &authority.federation))
    };
    let honest = shown(vec![leaf.clone(), issuing.clone(), fake.clone()]).unwrap().unwrap();
    assert_eq!(honest.issuer(), Some(root_id(issuing)));
    assert!(shown(vec![leaf.clone(), fake, issuing.clone()]).is_none());
    // Another CA in between is not taken for the issuer.
    let shuffled = shown(vec![leaf, authority.root().clone(), issuing.clone()]).unwrap();
    assert!(matches!(shuffled, Err(PeerRefused::ChainOrder(_))));
}
