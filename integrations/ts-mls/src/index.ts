export { ciphersuite, withService } from "./ciphersuite.js";
export {
  Service,
  type Claimed,
  type DecryptRequest,
  type Decrypted,
  type KeyPackageRecord,
  type PreSharedKey,
  type ServiceOptions,
  type TLSFiles,
} from "./service.js";
export { ServiceError, type Reason } from "./errors.js";
export { hpkeHandle, parseHandle, signHandle, type Handle } from "./handles.js";
export {
  joinFromWelcome,
  keyPackageFor,
  type JoinOptions,
  type Joined,
  type ServiceKeyPackage,
} from "./join.js";
