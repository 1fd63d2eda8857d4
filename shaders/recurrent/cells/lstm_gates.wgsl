// The gates of an LSTM: i, f, g, o.

const GATES: u32 = 4u;
const COUPLED: bool = false;
