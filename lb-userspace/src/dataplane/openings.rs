//! Half-open DR connections, which lie in buckets of an array. Only the data path writes there: a
//! lock that this side held while the scheduler took its CPU away would stop packets. What is read
//! while a bucket is being written may be half of one connection and half of another: good enough
//! for counts and listings.

use std::io;
use std::path::Path;

use aya::Pod;
use lb_common::abi::{Addr, Bucket, Flow, FlowKey, Opening, PER_BUCKET, PLACES};

use super::table::Table;

/// How many buckets there are for this many half-open connections: a power of two.
pub fn buckets(connections: u32) -> u32 {
    connections.div_ceil(PER_BUCKET).next_power_of_two()
}

/// The connections of one address family.
pub struct Openings<A>(Table<u32, Bucket<A>>);

impl<A: Addr> Openings<A>
where
    Bucket<A>: Pod,
{
    /// Opens the map pinned at `dir/name`.
    pub fn open(dir: &Path, name: &str) -> anyhow::Result<Self> {
        Ok(Self(Table::open(dir, name)?))
    }

    /// How many connections there is room for.
    pub fn capacity(&self) -> u32 {
        self.0.capacity() * PLACES as u32
    }

    /// Calls `visit` with every connection, those included that have been silent for too long.
    pub fn walk(&self, mut visit: impl FnMut(&FlowKey<A>, &Flow<A>)) -> io::Result<()>
    where
        Flow<A>: Default,
    {
        self.0.walk(|_, buckets| {
            for place in buckets.iter().flat_map(|bucket| &bucket.places) {
                if let Some((real, state)) = Opening::<A>::real_and_state(place.server) {
                    let (last_seen, created) = (place.last_seen, place.created);
                    let flow = Flow { real, state, last_seen, created, ..Flow::default() };
                    visit(&place.key, &flow);
                }
            }
            Ok(())
        })
    }

    /// How many connections there are, by counting.
    pub fn count(&self) -> io::Result<u32>
    where
        Flow<A>: Default,
    {
        let mut count = 0;
        self.walk(|_, _| count += 1)?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_at_least_as_many_connections_as_the_file_says() {
        for connections in [1, 3, 4, 5, 1000, 65_536, 65_537, 16_777_216] {
            let buckets = buckets(connections);
            assert!(buckets.is_power_of_two());
            assert!(buckets * PLACES as u32 >= connections, "{connections}: {buckets}");
        }
        assert_eq!(buckets(65_536), 32_768, "what the object says without a loader");
    }
}
