// The plain loops, one pair per recurrence: the code that says what the vector kernels must compute.
#ifndef CELLWEAVE_PLAIN_PLAIN_H_
#define CELLWEAVE_PLAIN_PLAIN_H_

#include "cellweave.h"

namespace cellweave {
namespace plain {

template <typename Real>
void rnn_forward(const cw_sequence &s);
template <typename Real>
void rnn_backward(const cw_sequence &s);
template <typename Real>
void gru_forward(const cw_sequence &s);
template <typename Real>
void gru_backward(const cw_sequence &s);
template <typename Real>
void lstm_forward(const cw_sequence &s);
template <typename Real>
void lstm_backward(const cw_sequence &s);

}  // namespace plain
}  // namespace cellweave
#endif
