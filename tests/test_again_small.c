// The same with buffers that are as small as they may be, so that heads come in pieces and answers do not fit.

#define HTTPSRV_READ_BUFFER    512
#define HTTPSRV_WRITE_BUFFER   512
#define HTTPSRV_REQUEST_MEMORY 256
#include "test_again.c"
