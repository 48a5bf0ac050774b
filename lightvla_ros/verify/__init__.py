"""An engine against its reference: kept sets, actions, padding; and the tolerances."""
