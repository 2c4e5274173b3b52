//! Properties of the policies: TCP states, selection, time.

use lb_common::abi::Service;
use lb_common::policy::clock::{age, expired, ms_from_ticks, tick_shift, ticks_from_ms};
use lb_common::policy::select::{hash, lighter, scale};
use lb_common::policy::tcp::{Sender, is_active, next, state, timeout};
use proptest::prelude::*;

const FIN: u8 = 1;
const RST: u8 = 4;

fn sender(server: bool) -> Sender {
    if server { Sender::Server } else { Sender::Client }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..Default::default() })]

    /// Whatever passes by, in whatever order: a connection is active until the first FIN or RST and
    /// never again, RST is final, and "closed" needs a FIN of both sides.
    #[test]
    fn tcp_states_agree_with_what_was_sent(
        segments in prop::collection::vec((any::<bool>(), any::<u8>(), 0u8..4), 0..12),
    ) {
        let (mut now, mut closed, mut reset) = (state::ESTABLISHED, [false; 2], false);
        for (server, flags, keep) in segments {
            let flags = flags & !(if keep == 0 { 0 } else { RST } | if keep == 1 { FIN } else { 0 });
            now = next(now, sender(server), flags);
            reset |= flags & RST != 0;
            closed[usize::from(server)] |= flags & FIN != 0;
            let want = match (reset, closed) {
                (true, _) => state::RESET,
                (_, [false, false]) => state::ESTABLISHED,
                (_, [true, false]) => state::CLIENT_CLOSED,
                (_, [false, true]) => state::SERVER_CLOSED,
                (_, [true, true]) => state::CLOSED,
            };
            prop_assert_eq!(now, want);
            prop_assert_eq!(is_active(now), !reset && closed == [false; 2]);
        }
    }

    /// Any byte is a state: nothing panics, and after an end the short time-out holds.
    #[test]
    fn an_end_brings_the_short_timeout(
        current in any::<u8>(), server in any::<bool>(), flags in any::<u8>(),
    ) {
        let service = Service { idle: 1, half_open: 2, closing: 3, ..Service::default() };
        let after = next(current, sender(server), flags);
        if flags & (FIN | RST) != 0 {
            prop_assert_eq!(timeout(after, &service), 3);
        } else {
            prop_assert_eq!(after, current);
        }
    }

    /// `lighter` orders servers by load over weight, exactly as fractions.
    #[test]
    fn lighter_is_the_order_of_fractions(
        loads in any::<[u32; 2]>(), weights in [1u32.., 1u32..],
    ) {
        let [a, b] = loads.map(u64::from);
        let exact = u128::from(a) * u128::from(weights[1]) < u128::from(b) * u128::from(weights[0]);
        prop_assert_eq!(lighter(a, weights[0], b, weights[1]), exact);
        prop_assert!(!(exact && lighter(b, weights[1], a, weights[0])));
    }

    /// Every client has a slot, and of more slots never an earlier one.
    #[test]
    fn scale_stays_below_the_count(client in any::<u32>(), count in 1u32.., more in any::<u32>()) {
        let place = scale(hash(client), count);
        prop_assert!(place < count);
        prop_assert!(scale(hash(client), count.saturating_add(more)) >= place);
    }

    /// The hash loses nothing: different addresses stay different.
    #[test]
    fn hash_is_injective(a in any::<u32>(), b in any::<u32>()) {
        prop_assert_eq!(hash(a) == hash(b), a == b);
    }

    /// Ages are right across the counter's end; the future counts as now.
    #[test]
    fn ages_survive_the_end_of_the_counter(
        since in any::<u32>(), by in any::<u32>(), limit in any::<u32>(),
    ) {
        let now = since.wrapping_add(by);
        let want = if by > u32::MAX / 2 { 0 } else { by };
        prop_assert_eq!(age(now, since), want);
        prop_assert_eq!(expired(now, since, limit), want > limit);
    }

    /// Something seen at any moment of tick 0 is not expired before its whole time-out has passed,
    /// and is at most two ticks and a jiffy late.
    #[test]
    fn timeouts_are_never_cut_short(ms in 0u64..40_000_000, hz in 24u32..=1024) {
        let shift = tick_shift(hz);
        let ticks = ticks_from_ms(ms, hz, shift);
        let per_tick = 1u64 << shift;
        // Seen in the last jiffy of its tick, expired in the first jiffy of tick `ticks + 1`.
        let shortest = u64::from(ticks) * per_tick + 1;
        prop_assert!(shortest * 1000 >= ms * u64::from(hz));
        let late = (u64::from(ticks) + 1) * per_tick;
        prop_assert!((late - 2 * per_tick).saturating_sub(per_tick + 1) * 1000 <= ms * u64::from(hz));
        prop_assert!(ms_from_ticks(ticks, hz, shift) >= ms);
    }
}
