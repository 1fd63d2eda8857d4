// The gates of an LSTM with coupled input and forget gates, f = 1 - i: i, g, o.

const GATES: u32 = 3u;
const COUPLED: bool = true;
