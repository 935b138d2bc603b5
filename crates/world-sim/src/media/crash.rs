//! What is left after the power or the process is gone.

use super::{SECTOR_BYTES, SimMedia, WindowWrite, sector_pieces};

impl SimMedia {
    /// Power fails: of the window and of the writes in flight, each sector ends as
    /// durable or as any later version. Then nothing is in flight.
    pub fn power_cut(&self) {
        let mut state = self.state_mut();
        let state = &mut *state;
        let style = state.rng.below(5);
        let mut candidates: Vec<WindowWrite> = state.window.drain(..).collect();
        candidates.extend(std::mem::take(&mut state.in_flight).into_values());
        let mut kept_sectors = 0;
        for write in &candidates {
            let keep_all = match style {
                0 => Some(true),
                1 => Some(false),
                2 => Some(state.rng.percent(50)),
                _ => None,
            };
            let share = if style == 3 { 50 } else { 90 };
            let promised = write.order > 0 && write.order <= state.lied_order;
            for (at, piece) in sector_pieces(write) {
                if keep_all.unwrap_or_else(|| state.rng.percent(share)) {
                    state.durable.write(at, &piece);
                    kept_sectors += 1;
                } else if promised {
                    state.damaged.insert(at..at + SECTOR_BYTES);
                }
            }
        }
        state.current = state.durable.clone();
        state.parked.clear();
        self.note("power-cut", [candidates.len() as u64, kept_sectors, style]);
    }

    /// The process dies, the machine lives: completed writes stay, each sector of the
    /// writes in flight lands or not. Then nothing is in flight.
    pub fn process_crash(&self) {
        let mut state = self.state_mut();
        let in_flight: Vec<_> = std::mem::take(&mut state.in_flight).into_values().collect();
        let style = state.rng.below(3);
        for write in &in_flight {
            for (at, piece) in sector_pieces(write) {
                let lands = style == 0 || (style == 1 && state.rng.percent(50));
                if lands {
                    let piece = WindowWrite { order: 0, offset_bytes: at, data: piece };
                    state.land(piece, self.medium.write_through);
                }
            }
        }
        state.parked.clear();
        drop(state);
        self.note("process-crash", [in_flight.len() as u64, style, 0]);
    }
}
